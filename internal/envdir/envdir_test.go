package envdir

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"A": "one \t\nsecond line", "B": "x\x00y", "EMPTY": "", "BLANK": "\n", ".hidden": "x", "a=b": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, unset, err := Read(dir)
	if want := []string{"A=one", "B=x\ny", "BLANK="}; err != nil || !slices.Equal(set, want) || !slices.Equal(unset, []string{"EMPTY"}) {
		t.Errorf("%q, %q, %v; want %q and EMPTY", set, unset, err, want)
	}
}

// A file may be longer than a variable, but not its first line.
func TestReadLong(t *testing.T) {
	long := strings.Repeat("x", 2<<20)
	for text, want := range map[string]bool{long: false, "a\n" + long: true, long[:maxValue-1]: true, long[:maxValue]: false} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "A"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Read(dir); (err == nil) != want {
			t.Errorf("%d bytes, the first is %c: %v", len(text), text[0], err)
		}
	}
	dir := t.TempDir()
	if os.Symlink("/dev/zero", filepath.Join(dir, "A")) != nil {
		t.Skip("no symbolic links")
	}
	if _, err := os.Stat(filepath.Join(dir, "A")); err != nil {
		t.Skip("no /dev/zero")
	}
	if _, _, err := Read(dir); err == nil {
		t.Error("/dev/zero is a variable")
	}
}
