//go:build unix && !solaris && !aix

package supervise

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Commands come while files are being written: the disk may be slow, or hang.
func TestCommandsDuringAWrite(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan byte, 1)
	d.Commands(func(c byte) { got <- c })
	d.mu.Lock() // as Write does
	if err := os.WriteFile(filepath.Join(dir, "supervise", "control"), []byte("k"), 0); err != nil {
		t.Error(err)
	}
	select {
	case <-got:
	case <-time.After(10 * time.Second):
		t.Error("a command waits for the files")
	}
	d.mu.Unlock()
	d.Close()
}
