package binary

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplaced(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(path("a"), path("c")); err != nil {
		t.Fatal(err)
	}
	for other, want := range map[string]bool{"a": false, "b": true, "c": false, "missing": false} {
		if got := Replaced(path("a"), path(other)); got != want || Replaced(path(other), path("a")) != want {
			t.Errorf("%s: %t, want %t", other, got, want)
		}
	}
}
