package supervise

import (
	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

func mkfifo(d *safedir.Dir, name string, mode uint32) error {
	return unix.Mkfifoat(int(d.Fd()), name, mode)
}

// replace lets next take the place of name. If ext4 renames a file over another,
// it first starts to write the data to the disk, which takes five times as long
// as all the rest; an exchange does not, and these files need not outlive a crash
// of the system. A system call filter or a file system may refuse it.
func replace(dir int, next, name string) error {
	exchange := func() error { return unix.Renameat2(dir, next, dir, name, unix.RENAME_EXCHANGE) }
	if exchange() == nil {
		if unix.Unlinkat(dir, next, 0) == nil {
			return nil
		}
		if err := exchange(); err != nil { // name was a directory
			return err
		}
	}
	return unix.Renameat(dir, next, dir, name)
}
