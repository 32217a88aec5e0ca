package internal

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tree calls f with every file of the repository that ends so.
func tree(t *testing.T, suffix string, f func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, suffix) {
			return err
		}
		text, err := os.ReadFile(path)
		f(path, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Programs in README.md compile as they stand there.
func TestProgramsInReadme(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH")
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) < 3 {
		t.Errorf("README.md has %d programs, want the three ways to use the library", len(blocks))
	}
	for i, block := range blocks {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("readme%d.go", i+1))
		if err := os.WriteFile(file, block[1], 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-o", os.DevNull, file)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("program %d of README.md: %v\n%s", i+1, err, out)
		}
		if out, err := exec.Command("gofmt", "-l", file).Output(); err == nil && len(out) > 0 {
			t.Errorf("program %d of README.md is not formatted", i+1)
		}
	}
}

// Tests, files and pages that the documents name exist.
func TestNamesInDocuments(t *testing.T) {
	var code strings.Builder
	tree(t, "_test.go", func(_, text string) { code.WriteString(text) })
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	name := regexp.MustCompile("`((Test|Benchmark|Fuzz)[A-Z][A-Za-z0-9]*)(…)?")
	tree(t, ".md", func(path, text string) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", path, m[1], err)
			}
		}
		for _, m := range name.FindAllStringSubmatch(text, -1) {
			if end := map[bool]string{true: "", false: "("}[m[3] != ""]; !strings.Contains(code.String(), "func "+m[1]+end) {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
	})
}
