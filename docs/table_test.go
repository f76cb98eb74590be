package docs_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// cellLink is a cell's proof: a test's name, linked to the file that has it.
var cellLink = regexp.MustCompile(`^\[(Test\w+(?:/[\w.-]+)*)\]\(([^)#]+)\)(.*)$`)

var anyLink = regexp.MustCompile(`\[[^]]*\]\([^)]*\)`)

// TestTable: each cell of README's table of TEEs is a test that is there, or empty.
func TestTable(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := tableOf(string(readme), "| TEE |")
	if len(rows) < 8 {
		t.Fatalf("%d rows, expected one for each TEE", len(rows))
	}
	for _, row := range rows {
		last := len(row) - 1 // which has words between
		for _, cell := range row[1:last] {
			for part := range strings.SplitSeq(cell, ", ") {
				if part != "" {
					checkProof(t, row[0], part)
				}
			}
		}
		links := anyLink.FindAllString(row[last], -1)
		for _, link := range links {
			checkProof(t, row[0], link)
		}
		if len(links) == 0 {
			t.Errorf("%s: nothing proves what it was tested on", row[0])
		}
	}
}

// tableOf returns the cells of the table whose head begins so.
func tableOf(page, head string) (rows [][]string) {
	_, rest, _ := strings.Cut(page, "\n"+head)
	for i, line := range strings.Split(rest, "\n") {
		if i == 0 || i == 1 {
			continue // the rest of the head, and the rule below it
		}
		line, isRow := strings.CutPrefix(line, "|")
		if !isRow {
			return rows
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.TrimSuffix(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows = append(rows, cells)
	}
	return rows
}

func checkProof(t *testing.T, row, cell string) {
	t.Helper()
	m := cellLink.FindStringSubmatch(cell)
	if m == nil || m[3] != "" {
		t.Errorf("%s: %q, expected [TestName](file) or nothing", row, cell)
		return
	}
	name, sub, _ := strings.Cut(m[1], "/")
	if name == "TestScripts" { // each script is a test of its own
		if _, err := os.Stat("../" + m[2]); err != nil || m[2] != "cmd/tally/testdata/"+sub+".txtar" {
			t.Errorf("%s: %s is no script %s (%v)", row, m[1], m[2], err)
		}
		return
	}
	source, err := os.ReadFile("../" + m[2])
	if err != nil || !strings.Contains(string(source), "\nfunc "+name+"(t *testing.T) {") {
		t.Errorf("%s: %s is no test of %s (%v)", row, name, m[2], err)
	}
}
