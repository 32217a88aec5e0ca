//go:build unix && !linux && !solaris && !aix

package supervise

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

// mkfifo uses the path, because not all of these systems have mkfifoat. It follows
// no link in the last element. A FIFO that is made in another directory, because
// the path was changed meanwhile, is not found in this one.
func mkfifo(d *safedir.Dir, name string, mode uint32) error {
	return unix.Mkfifo(filepath.Join(d.Path(), name), mode)
}

func replace(dir int, next, name string) error { return unix.Renameat(dir, next, dir, name) }
