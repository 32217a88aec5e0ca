package supervise

import (
	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

func mkfifo(d *safedir.Dir, name string, mode uint32) error {
	return unix.Mkfifoat(int(d.Fd()), name, mode)
}
