//go:build unix

package envdir

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A FIFO that takes the place of a file after the look keeps no reader waiting.
func TestFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "A")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, _, err := firstLine(path)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a FIFO is an empty file")
		}
	case <-time.After(10 * time.Second):
		t.Error("a FIFO keeps the reader waiting")
	}
}
