package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.md", "A caller should check the error.")
	bad := write("bad.md", "It is told.\n")
	long := write("long.go", "package a\n\n// It should be"+strings.Repeat(" shorter", 20)+".\n")

	for _, test := range []struct {
		name   string
		paths  []string
		check  bool
		list   string
		passed bool
		want   string
	}{
		{"within the limits", []string{good}, true, "", true, "total"},
		{"over a limit", []string{good, bad}, true, "", false, "1  " + bad},
		{"no lower limit", []string{bad}, true, "", false, "should: 0.0 per 10,000 words, limit ≥10"},
		{"a directory", []string{dir + "/..."}, false, "", false, dir},
		{"a long line", []string{long}, true, "", false, long + ":3: long: "},
		{"a class", []string{dir}, false, "told", true, bad + ":1: told: It is told\n"},
	} {
		var out strings.Builder
		passed, err := run(&out, test.paths, test.check, test.list)
		if err != nil {
			t.Fatal(err)
		}
		if passed != test.passed || !strings.Contains(out.String(), test.want) {
			t.Errorf("%s: passed is %v, want %v, and %q in\n%s", test.name, passed, test.passed, test.want, out.String())
		}
	}
	if _, err := run(&strings.Builder{}, []string{dir}, false, "unknown"); err == nil {
		t.Error("no error for an unknown class")
	}
}
