//go:build linux

package setup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// suites are Debian's releases from which packages are taken, each by its
// codename, by architecture. Kernels of a series are in few of them.
var suites = map[string][]string{
	AMD64: {"bookworm", "bookworm-updates", "bookworm-backports", "trixie", "trixie-updates", "trixie-backports"},
	S390X: {"bookworm", "bookworm-updates"},
}

// apt is a private apt: its lists, cache and status are in a folder of its own,
// it believes that nothing is installed, and the host's is never changed.
type apt struct {
	arch string
	dir  string
	args []string // that make it private
}

// openApt sets the private apt up, and fetches its lists if it has none or if
// they are to be renewed.
func openApt(arch, dir string, renew bool) (*apt, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, &MissingError{What: "Debian's packages", Why: "no apt-get here"}
	}
	a := &apt{arch: arch, dir: dir}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "etc/none.d"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	set := func(key, value string) { a.args = append(a.args, "-o", key+"="+value) }
	set("Dir::Etc::sourcelist", filepath.Join(dir, "etc/sources.list"))
	set("Dir::Etc::sourceparts", filepath.Join(dir, "etc/none.d"))
	set("Dir::Etc::preferences", filepath.Join(dir, "etc/none"))
	set("Dir::Etc::preferencesparts", filepath.Join(dir, "etc/none.d"))
	set("Dir::State", filepath.Join(dir, "state"))
	set("Dir::State::status", filepath.Join(dir, "state/status"))
	set("Dir::Cache", filepath.Join(dir, "cache"))
	set("APT::Sandbox::User", "root") // or apt's own user could not read the folder
	set("APT::Architecture", arch)
	set("APT::Architectures::", arch)
	set("Acquire::Languages", "none")
	set("APT::Update::Post-Invoke-Success", "")
	set("APT::Update::Post-Invoke", "")
	set("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false")
	set("Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled", "false")
	listed := filepath.Join(dir, "listed") // made when the lists have been fetched
	if _, err := os.Stat(listed); err == nil && !renew {
		return a, nil
	}
	if err := a.writeSources(); err != nil {
		return nil, err
	}
	if _, err := a.run("apt-get", "-q", "update"); err != nil {
		return nil, unreachable(err)
	}
	return a, os.WriteFile(listed, nil, 0o644)
}

// unreachable is what apt said of a mirror.
func unreachable(err error) error {
	return &MissingError{What: "Debian's packages", Why: "the mirror does not give them: " + oneLine(err)}
}

// oneLine is an error's text as a skipped test shows it.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// run runs apt-get or apt-cache in the private setting.
func (a *apt) run(program string, args ...string) (string, error) {
	cmd := exec.Command(program, append(slices.Clone(a.args), args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return output(cmd)
}

// writeSources writes the sources list: the suites, at the mirror of the host's
// own apt.
func (a *apt) writeSources() error {
	mirror, err := debianMirror()
	if err != nil {
		return err
	}
	signed := ""
	if keyring := "/usr/share/keyrings/debian-archive-keyring.gpg"; exists(keyring) {
		signed = " signed-by=" + keyring
	}
	var list strings.Builder
	for _, suite := range suites[a.arch] {
		fmt.Fprintf(&list, "deb [arch=%s%s] %s %s main\n", a.arch, signed, mirror, suite)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "etc/sources.list"), []byte(list.String()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.dir, "state/status"), nil, 0o644)
}

// debianMirror returns the address from which the host's apt gets Debian itself,
// as opposed to its security updates and to other people's packages.
func debianMirror() (string, error) {
	out, err := output(exec.Command("apt-get", "indextargets", "--format", "$(LABEL)|$(RELEASE)|$(REPO_URI)", "Created-By: Packages"))
	if err != nil {
		return "", err
	}
	var unlabelled string
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSpace(line), "|", 3)
		if len(f) < 3 {
			continue
		}
		if f[0] == "Debian" {
			return f[2], nil
		}
		// Before the host's first apt-get update there are no labels.
		if strings.HasPrefix(f[0], "$") && !strings.Contains(f[1], "security") && unlabelled == "" {
			unlabelled = f[2]
		}
	}
	if unlabelled == "" {
		return "", &MissingError{What: "Debian's packages", Why: "this machine's apt has no source of them"}
	}
	return unlabelled, nil
}

// names returns the names of packages with a prefix.
func (a *apt) names(prefix string) ([]string, error) {
	out, err := a.run("apt-cache", "pkgnames", prefix)
	return strings.Fields(out), err
}

// fetch downloads the newest version of packages and unpacks them into dir.
// They are not installed, and none of their scripts is run.
func (a *apt) fetch(dir string, pkgs ...string) error {
	debs := filepath.Join(a.dir, "debs")
	if err := os.RemoveAll(debs); err != nil {
		return err
	}
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	cmd := exec.Command("apt-get", append(append(slices.Clone(a.args), "-q", "download"), pkgs...)...)
	cmd.Dir = debs
	if _, err := output(cmd); err != nil {
		return unreachable(err)
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) != len(pkgs) {
		return fmt.Errorf("apt-get download: %d files of %d packages", len(files), len(pkgs))
	}
	for _, file := range files {
		if _, err := output(exec.Command("dpkg", "-x", file, dir)); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
