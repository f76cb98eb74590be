//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tallystick/lab/setup"
)

// startTPM makes a TPM with an endorsement key and its certificate, by a
// certificate authority of its own, and starts it. It listens on the socket.
func startTPM(dir string, banks []string, log *console) (tpm *process, socket string, err error) {
	if err := manufacture(dir, banks); err != nil {
		return nil, "", err
	}
	swtpm, err := setup.Program("swtpm")
	if err != nil {
		return nil, "", err
	}
	socket = filepath.Join(dir, "socket")
	tpm, err = startProcess(log, swtpm, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--ctrl", "type=unixio,path="+socket, "--terminate")
	if err != nil {
		return nil, "", err
	}
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			return tpm, socket, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return tpm, "", fmt.Errorf("swtpm made no socket in 5 s")
}

// manufacture makes a TPM's state. swtpm_setup's usual settings would keep the
// authority's key in the system's folders.
func manufacture(dir string, banks []string) error {
	localca, err := setup.Program("swtpm_localca")
	if err != nil {
		return err
	}
	tpmSetup, err := setup.Program("swtpm_setup")
	if err != nil {
		return err
	}
	ca := filepath.Join(dir, "ca")
	if err := os.MkdirAll(ca, 0o755); err != nil {
		return err
	}
	conf := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		return path
	}
	options := conf("localca.options", "--platform-manufacturer lab\n--platform-version 1\n--platform-model lab\n")
	config := conf("localca.conf", strings.Join([]string{
		"statedir = " + ca,
		"signingkey = " + filepath.Join(ca, "key.pem"),
		"issuercert = " + filepath.Join(ca, "cert.pem"),
		"certserial = " + filepath.Join(ca, "serial"),
		""}, "\n"))
	setupConf := conf("setup.conf", strings.Join([]string{
		"create_certs_tool = " + localca,
		"create_certs_tool_config = " + config,
		"create_certs_tool_options = " + options,
		""}, "\n"))
	if err != nil {
		return err
	}
	out, err := exec.Command(tpmSetup, "--tpm2", "--tpmstate", dir, "--config", setupConf,
		"--create-ek-cert", "--pcr-banks", strings.Join(banks, ","), "--lock-nvram", "--overwrite").CombinedOutput()
	if err != nil {
		return fmt.Errorf("swtpm_setup: %w: %s", err, out)
	}
	return nil
}
