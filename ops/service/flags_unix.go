//go:build unix && !solaris && !aix

package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/safedir"
	"github.com/prefork-go/prefork/ops/internal/pidfile"
)

// checkDir returns an error if path is not a directory, or lets every user
// remove the files of others.
func checkDir(path string) error {
	dir, err := safedir.Open(path)
	if errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%s is not a directory", path)
	} else if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Unprotected()
}

// checkWritable returns an error if this process may not create files in a
// directory.
func checkWritable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("directory %s cannot be written: %w", dir, err)
	}
	return nil
}

// openDir opens the directory of a file.
func openDir(path string) (dir *safedir.Dir, name string, err error) {
	dir, err = safedir.Open(filepath.Dir(path))
	return dir, filepath.Base(path), err
}

// examineFlag reports whether a file is a flag for this process. An error that
// matches ENOENT or ENOTDIR means that there is no directory for it.
func examineFlag(path string) (set bool, err error) {
	// Usually there is no flag, and loops examine it often. So the directory
	// is opened only for a file.
	if !mayExist(path) {
		return false, nil
	}
	dir, name, err := openDir(path)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	st, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if why := distrust(dir, path, st); why != "" {
		return false, &ignoredFlagError{path, st.Uid, why}
	}
	return true, nil
}

// mayExist reports whether a file exists, or that is unknown.
func mayExist(path string) bool {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != unix.ENOENT {
		return true
	}
	// If its directory does not exist, that is unknown. It may exist by now.
	return unix.Stat(filepath.Dir(path), &st) != nil || unix.Lstat(path, &st) != unix.ENOENT
}

// distrust returns why a file in a directory is not a flag: others may have put
// it there. It returns "" for a flag.
func distrust(dir *safedir.Dir, path string, st *unix.Stat_t) (why string) {
	shared := dir.Shared()
	switch {
	case shared == nil:
		return ""
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return fmt.Sprintf("it belongs to user %d, and %s", st.Uid, shared)
	case st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Sprintf("it is another name of an existing file, and %s", shared)
	case isPIDFile(path, st):
		return fmt.Sprintf("it is a pid file with another name, and %s", shared)
	}
	return ""
}

// isPIDFile reports whether a file contains a pid. Others cannot write to such a
// file of this user's, but they may be able to rename it. A 1 is more likely a
// flag's content, except in process 1.
func isPIDFile(path string, st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return false
	}
	pid := pidfile.Read(path)
	return pid > 1 || pid == os.Getpid()
}

func createFlag(path string) error {
	dir, name, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.Create(name, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func removeFlag(path string) error {
	dir, name, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Remove(name)
}

// ownerOf returns the owner of a file.
func ownerOf(path string) (uid uint32, err error) {
	dir, name, err := openDir(path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	st, err := dir.Lstat(name)
	if err != nil {
		return 0, err
	}
	return st.Uid, nil
}
