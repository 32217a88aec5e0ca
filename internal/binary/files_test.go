//go:build unix

package binary

import (
	"os"
	"path/filepath"
	"testing"
)

// self returns the path of the test binary.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// copied returns the path of a copy of the test binary.
func copied(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	return written(t, "program", data, 0o755)
}

// written returns the path of a new file in a new directory.
func written(t testing.TB, name string, data []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	return path
}
