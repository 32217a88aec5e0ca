//go:build unix

package testprog

import (
	"os"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// SocketDir returns a new directory like preforktest.TempDir. Its path is short
// enough for the name of a unix socket, which has at most 104 or 108 bytes: if
// the path of the temporary directory is long, it is in /tmp.
func SocketDir(t testing.TB) string {
	t.Helper()
	if before := os.TempDir(); len(before) > 60 {
		os.Setenv("TMPDIR", "/tmp")
		defer os.Setenv("TMPDIR", before)
	}
	return preforktest.TempDir(t)
}
