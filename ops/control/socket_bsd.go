//go:build unix && !linux && !solaris && !aix

package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
)

const abstractNames = false

// bindFile binds a socket whose file gets the mode ownerOnly. Only Linux can make
// it with that mode, so the directory must keep other users away, unless each
// connection shows its user.
func bindFile(_ *safedir.Dir, _, path string) (*os.File, error) {
	if info, err := os.Stat(filepath.Dir(path)); err != nil {
		return nil, err
	} else if !reportsPeers && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("other users can enter the directory %s, and this system does not report the users of connections: use one of mode 0700", filepath.Dir(path))
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	ln.SetUnlinkOnClose(false)
	if err := os.Chmod(path, ownerOnly); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return ln.File()
}

func listenAbstract(string) (*socket, error) { return nil, errors.ErrUnsupported }

func chgrp(dir *safedir.Dir, name string, _ *unix.Stat_t, group int) error {
	return unix.Fchownat(int(dir.Fd()), name, -1, group, unix.AT_SYMLINK_NOFOLLOW)
}

func chmod(dir *safedir.Dir, name string, _ *unix.Stat_t, mode uint32) error {
	return unix.Fchmodat(int(dir.Fd()), name, mode, unix.AT_SYMLINK_NOFOLLOW)
}
