package envdir

import (
	"os"
	"path/filepath"
	"slices"
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
