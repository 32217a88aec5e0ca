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

// Go code in the documents is whole programs, which compile as they stand there and are formatted.
func TestProgramsInDocuments(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not in PATH")
	}
	block := regexp.MustCompile("(?ms)^```go\n(.*?)^```$")
	programs := make(map[string]int) // by document
	tree(t, ".md", func(path, text string) {
		for i, m := range block.FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(m[1], "package main\n") {
				t.Errorf("%s: Go code number %d is no program; only programs can be compiled", path, i+1)
				continue
			}
			programs[path]++
			t.Run(fmt.Sprintf("%s %d", filepath.Base(path), i+1), func(t *testing.T) { compiles(t, m[1]) })
			if path == "../README.md" { // it says so
				t.Run("README.md on Windows", func(t *testing.T) { compiles(t, m[1], "GOOS=windows") })
			}
		}
	})
	for path, want := range map[string]int{"../README.md": 1, "../docs/CONFIGURATION.md": 1, "../docs/PORTING.md": 7, "../docs/RECIPES.md": 3, "../docs/DEBUGGING.md": 2} {
		if programs[path] < want {
			t.Errorf("%s has %d programs, want %d", path, programs[path], want)
		}
	}
}

func compiles(t *testing.T, program string, env ...string) {
	t.Helper()
	t.Parallel()
	module := ".."
	if strings.Contains(program, `"github.com/prefork-go/prefork/ops/`) {
		if module = "../ops"; !exists(module) {
			t.Skip("the module ops is not here")
		}
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "vet", file) // compiles it, and looks at it
	cmd.Dir, cmd.Env = module, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.Command("gofmt", "-l", file).Output(); err == nil && len(out) > 0 {
		t.Error("it is not formatted")
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
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
