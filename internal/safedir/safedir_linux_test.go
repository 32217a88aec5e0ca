package safedir

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asNobody calls f in a thread that has the user nobody, if this process is
// root's. The other threads stay root's.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan syscall.Errno)
	go func() {
		runtime.LockOSThread() // until the thread ends
		_, _, err := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		if err == 0 {
			f()
		}
		done <- err
	}()
	if err := <-done; err != 0 {
		t.Skipf("a thread cannot become another user's: %v", err)
	}
}

// A directory that its user may not read can be used all the same, but not
// listed.
func TestUnreadableDirectory(t *testing.T) {
	dir := base(t)
	must(t, os.Chmod(dir, 0o755))
	for up := dir; up != "/"; up = up[:max(1, strings.LastIndexByte(up, '/'))] {
		if info, err := os.Stat(up); err != nil || info.Mode()&0o011 != 0o011 {
			if err := os.Chmod(up, info.Mode()|0o011); err != nil {
				t.Skipf("another user cannot search %s: %v", up, err)
			}
		}
	}
	uid := -1
	if os.Geteuid() == 0 {
		uid = nobody
	}
	mkdir(t, dir+"/dir", uid, 0o311)
	t.Cleanup(func() { os.Chmod(dir+"/dir", 0o700) })
	asNobody(t, func() {
		d, err := Open(dir + "/dir")
		if err != nil {
			t.Error(err)
			return
		}
		defer d.Close()
		f, err := d.OpenFile("file", unix.O_RDWR, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		f.Close()
		if _, err := d.Names(); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Names: %v", err)
		}
		here, herr := d.InPlace()
		if err := errors.Join(d.Rename("file", "file2"), d.Remove("file2"), herr); err != nil || !here {
			t.Errorf("in place %t, %v", here, err)
		}
	})
}

// withoutOpenat2 runs a test again as on a kernel before Linux 5.6, and as in a
// sandbox.
func withoutOpenat2(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("openat2", test)
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		t.Run(errno.Error(), func(t *testing.T) {
			defer func(was func(int, string, *unix.OpenHow) (int, error)) { openat2 = was }(openat2)
			openat2 = func(int, string, *unix.OpenHow) (int, error) { return -1, errno }
			test(t)
		})
	}
}

// However another user moves a directory and a link on the way, Open never opens
// the directory of root's to which the link leads.
func TestOpenWhileMoved(t *testing.T) { withoutOpenat2(t, openWhileMoved) }

func openWhileMoved(t *testing.T) {
	needRoot(t)
	dir := base(t)
	vault := mkdir(t, dir+"/vault", -1, 0o700)
	mkdir(t, dir+"/foreign", nobody, 0o755)
	run := mkdir(t, dir+"/foreign/run", -1, 0o755)
	must(t, os.Symlink(vault, run+"2"))
	var stop atomic.Bool
	moved := make(chan error)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = unix.Renameat2(unix.AT_FDCWD, run, unix.AT_FDCWD, run+"2", unix.RENAME_EXCHANGE)
		}
		moved <- err
	}()
	opened := 0
	for began := time.Now(); time.Since(began) < 100*time.Millisecond || opened == 0 && time.Since(began) < 20*time.Second; {
		d, err := Open(run)
		if err != nil {
			continue
		}
		if opened++; d.leadsTo(vault) {
			t.Error("Open followed the link")
		}
		d.Close()
	}
	stop.Store(true)
	if err := <-moved; err == unix.EINVAL {
		t.Skip("the file system cannot exchange two files")
	} else if err != nil || opened == 0 {
		t.Errorf("%d times opened: %v", opened, err)
	}
}

// A directory on the way that is replaced by a link after it was examined is not
// followed, wherever it is on the way. A path of directories is opened.
func TestNoLinksOnTheWay(t *testing.T) { withoutOpenat2(t, noLinksOnTheWay) }

func noLinksOnTheWay(t *testing.T) {
	dir := base(t)
	mkdir(t, dir+"/dir", -1, 0o711)
	mkdir(t, dir+"/dir/sub", -1, 0o700)
	must(t, os.Symlink("dir", dir+"/link"))
	must(t, os.Symlink("sub", dir+"/dir/link"))
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	for path, want := range map[string]error{
		dir + "/dir": nil, dir + "/dir/sub": nil, "/": nil, dir + "/": nil,
		dir + "/link": unix.ELOOP, dir + "/link/sub": unix.ELOOP, dir + "/dir/link": unix.ELOOP,
		dir + "/none/sub": unix.ENOENT,
	} {
		fd, err := openWithoutLinks(path, flags)
		if err == unix.ENOTDIR && want == unix.ELOOP {
			err = want // of openat, because of O_DIRECTORY
		}
		if err != want {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if err != nil {
			continue
		}
		d := &Dir{path: path, f: os.NewFile(uintptr(fd), path)}
		if !d.leadsTo(path) {
			t.Errorf("%s: another directory was opened", path)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags != unix.FD_CLOEXEC || err != nil {
			t.Errorf("%s: descriptor flags %#x, %v", path, flags, err)
		}
		if _, err := d.Names(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		d.Close()
	}
}

// No descriptor is left open, whether walk succeeds or not.
func TestWalkCloses(t *testing.T) {
	dir := base(t)
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skipf("/proc is not mounted: %v", err)
		}
		return len(names)
	}
	before := open()
	for range 20 {
		if fd, err := walk(dir, unix.O_RDONLY); err != nil {
			t.Error(err)
		} else {
			unix.Close(fd)
		}
		if _, err := walk(dir+"/none/sub", unix.O_RDONLY); err != unix.ENOENT {
			t.Error(err)
		}
	}
	if after := open(); after >= before+20 {
		t.Errorf("%d descriptors, and %d before", after, before)
	}
}

func (d *Dir) leadsTo(path string) bool {
	var want unix.Stat_t
	st, err := d.stat()
	return err == nil && unix.Stat(path, &want) == nil && SameFile(st, &want)
}

// A table of a user namespace, and whether it has user 65534.
func TestMaps(t *testing.T) {
	for table, want := range map[string]bool{
		"         0          0 4294967295\n":                      true,
		"         0       1000          1\n":                      false,
		"         0       1000          1\n   1  100000  65536\n": true,
		"         0       1000          1\n   1  100000  65533\n": false,
		"         0       1000          1\n65534  65534      1\n": true,
		"         0       1000      65534\n65535 100000  65536\n": false,
		"":             false,
		"unreadable\n": true,
	} {
		if got := maps(table, overflowUID); got != want {
			t.Errorf("%q: %t, want %t", table, got, want)
		}
	}
}

// In a container without privileges, files of the machine's root belong to a user
// whom no process there can have. They are trusted as root's are.
func TestUnmappedUsers(t *testing.T) {
	if foreign := os.Getenv("SAFEDIR_FOREIGN"); foreign != "" {
		var st unix.Stat_t
		must(t, unix.Stat(foreign, &st))
		if st.Uid != overflowUID || !unmapped(st.Uid) || unmapped(0) || unmapped(1000) {
			t.Errorf("user %d is unmapped: %t", st.Uid, unmapped(st.Uid))
		}
		for _, path := range []string{foreign, os.Getenv("SAFEDIR_BEHIND")} {
			if err := open(t, path).Shared(); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		return
	}
	foreign, behind := "/", base(t)
	if os.Geteuid() == 0 {
		foreign = mkdir(t, behind+"/foreign", nobody-1, 0o755)
		mkdir(t, foreign+"/dir", -1, 0o755)
		behind = foreign + "/link"
		must(t, os.Symlink("dir", behind))
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUnmappedUsers$", "-test.v")
	cmd.Env = append(os.Environ(), "SAFEDIR_FOREIGN="+foreign, "SAFEDIR_BEHIND="+behind)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
		t.Skipf("no user namespace: %v", err)
	}
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
