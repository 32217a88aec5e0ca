//go:build unix && !solaris && !aix

package sockets

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/safedir"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// boundFile makes a socket and returns its file as bind does: named by the
// kernel, if it does that for this process, or found at the place.
func boundFile(t *testing.T, path string, exact bool) *socketFile {
	t.Helper()
	at, err := hold(path)
	must(t, err)
	at.look()
	ln := listen(t, net.Listen, "unix", path)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	var f *socketFile
	if exact {
		f, err = at.madeBy(ln)
	} else {
		f, err = at.find()
	}
	must(t, err)
	if exact && !f.exact {
		f.close()
		t.Skip("the kernel does not name the file to this process")
	}
	t.Cleanup(f.close)
	return f
}

// swaps put another file at a place.
var swaps = map[string]func(path, secret string) error{
	"link":      func(path, secret string) error { return errors.Join(os.Remove(path), os.Symlink(secret, path)) },
	"hard link": func(path, secret string) error { return errors.Join(os.Remove(path), os.Link(secret, path)) },
	"moved, a link": func(path, secret string) error {
		return errors.Join(os.Rename(path, path+"2"), os.Symlink(secret, path))
	},
	"gone": func(path, secret string) error { return os.Remove(path) },
	"directory led elsewhere": func(path, secret string) error {
		dir := filepath.Dir(path)
		return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(filepath.Dir(secret), dir))
	},
}

// The owner, the group and the mode are changed of the socket only, and nothing
// else is removed, whatever has taken its name meanwhile.
func TestSwappedAfterBind(t *testing.T) {
	for name, swap := range swaps {
		for _, exact := range []bool{true, false} {
			t.Run(name+map[bool]string{true: "", false: ", found"}[exact], func(t *testing.T) {
				dir, vault := filepath.Join(socketDir(t), "d"), socketDir(t)
				must(t, os.Mkdir(dir, 0o700))
				t.Cleanup(func() { os.RemoveAll(dir + "2") })
				path, secret := filepath.Join(dir, "sock"), filepath.Join(vault, "sock")
				must(t, os.WriteFile(secret, []byte("secret"), 0o600))
				f := boundFile(t, path, exact)
				must(t, swap(path, secret))
				var before, after unix.Stat_t
				must(t, unix.Stat(secret, &before))
				gid := -1
				if os.Geteuid() == 0 {
					gid = 12345
				}
				if err := f.change(-1, gid, 0o640); err != nil && f.pin != nil {
					t.Errorf("change: %v", err)
				}
				if f.inPlace() {
					must(t, f.remove())
				}
				must(t, unix.Stat(secret, &after))
				if after.Mode != before.Mode || after.Gid != before.Gid || !exists(secret) {
					t.Errorf("the other file has mode %o and group %d", after.Mode, after.Gid)
				}
				if f.pin == nil {
					return
				}
				var st unix.Stat_t
				must(t, unix.Fstat(int(f.pin.Fd()), &st))
				if st.Mode&0o777 != 0o640 || gid != -1 && st.Gid != 12345 {
					t.Errorf("the socket has mode %o and group %d", st.Mode, st.Gid)
				}
				if name == "directory led elsewhere" && exists(filepath.Join(dir+"2", "sock")) {
					t.Error("the socket's file is left in the directory that was moved")
				}
			})
		}
	}
}

// A socket that bind makes in another directory, because the path leads there
// meanwhile, is an error. Its file does not stay if the kernel names it.
func TestBoundElsewhere(t *testing.T) {
	dir := socketDir(t)
	for _, name := range []string{"here", "there"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	path := filepath.Join(dir, "way", "sock")
	must(t, os.Symlink("here", filepath.Dir(path)))
	for _, occupied := range []bool{false, true} {
		if occupied { // by another socket
			leaveStale(t, filepath.Join(dir, "here", "sock"))
		}
		set := newSet(t, Config{})
		sock := &socket{network: "unix", address: path}
		_, err := bind(set, sock, func(network, address string) (net.Listener, error) {
			must(t, errors.Join(os.Remove(filepath.Dir(path)), os.Symlink("there", filepath.Dir(path))))
			ln, err := net.Listen(network, address)
			if err == nil && sock.file == nil {
				must(t, errors.Join(os.Remove(filepath.Dir(path)), os.Symlink("here", filepath.Dir(path))))
			}
			return ln, err
		})
		if err == nil || sock.file != nil || occupied && !errors.Is(err, safedir.ErrReplaced) {
			t.Errorf("error %v", err)
		}
		there := filepath.Join(dir, "there", "sock")
		if exists(there) && kernelNames(t) {
			t.Error("the file is left in the other directory")
		}
		os.Remove(there)
		if occupied && !exists(filepath.Join(dir, "here", "sock")) {
			t.Error("the other socket's file is gone")
		}
	}
}

// kernelNames reports whether the kernel names the files of sockets to this
// process.
func kernelNames(t *testing.T) bool {
	t.Helper()
	ln := listen(t, net.Listen, "unix", absent(t))
	at, err := hold(ln.Addr().String())
	must(t, err)
	f, err := at.madeBy(ln)
	must(t, err)
	defer f.close()
	return f.exact
}

// If the kernel does not name the file, then in a directory of others only a file
// without other names that belongs to this user is changed.
func TestChangeOwnFilesOnly(t *testing.T) {
	for _, test := range []struct {
		name string
		mode os.FileMode // of the directory
		st   func(st *unix.Stat_t)
		ok   bool
	}{
		{"own", 0o777, func(*unix.Stat_t) {}, true},
		{"foreign", 0o777, func(st *unix.Stat_t) { st.Uid++ }, false},
		{"hard link", 0o777, func(st *unix.Stat_t) { st.Nlink++ }, false},
		{"foreign in an own directory", 0o700, func(st *unix.Stat_t) { st.Uid++ }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := absent(t)
			must(t, os.Chmod(filepath.Dir(path), test.mode))
			f := boundFile(t, path, false)
			test.st(&f.st)
			if err := f.change(-1, -1, 0o600); (err == nil) != test.ok {
				t.Errorf("error %v", err)
			}
			f.exact = true
			must(t, f.change(-1, -1, 0o600))
		})
	}
}

// A file is removed from the directory in which it was made, if that has another
// path now.
func TestRemoveFilesInMovedDirectory(t *testing.T) {
	dir := filepath.Join(socketDir(t), "d")
	must(t, os.Mkdir(dir, 0o700))
	set := newSet(t, Config{})
	listen(t, set.Listen, "unix", dir+"/sock")
	must(t, os.Rename(dir, dir+"2"))
	must(t, os.Mkdir(dir, 0o700))
	leaveStale(t, dir+"/sock")
	set.RemoveFiles()
	if exists(dir+"2/sock") || !exists(dir+"/sock") {
		t.Errorf("the file in the moved directory is left: %t; another's is: %t", exists(dir+"2/sock"), exists(dir+"/sock"))
	}
}

// The descriptors of directories and files are closed with the file.
func TestFileDescriptors(t *testing.T) {
	count := func() int {
		t.Helper()
		names, err := os.ReadDir("/dev/fd")
		must(t, err)
		return len(names)
	}
	path := absent(t)
	leaveStale(t, path) // the runtime's poller has its descriptors now
	for name, free := range map[string]func(set *Set){"RemoveFiles": (*Set).RemoveFiles, "ReleaseFiles": (*Set).ReleaseFiles} {
		before := count()
		for range 3 {
			set := newSet(t, Config{})
			ln, err := set.Listen("unix", path) // ReleaseFiles leaves a stale file
			must(t, err)
			ln.Close()
			if _, err := set.Listen("unix", path); err == nil {
				t.Error("listens twice")
			}
			free(set)
			set.Close()
		}
		os.Remove(path)
		if after := count(); after > before {
			t.Errorf("%s: %d descriptors, and %d before", name, after, before)
		}
	}
}

// A predecessor's socket file that another program has replaced is left alone,
// whether the program asks for the socket or not.
func TestTakeOverReplacedFiles(t *testing.T) {
	if !kernelNames(t) {
		t.Skip("the kernel does not name the files of sockets to this process")
	}
	dir := socketDir(t)
	used, unused := bequest(t, "unix", dir+"/used"), bequest(t, "unix", dir+"/unused")
	used.Own, unused.Own = true, true
	set := newSet(t, Config{Successor: true, Passive: true, Dir: dir, Inherited: NewInherited([]marker.Socket{used, unused}, nil)})
	listen(t, set.Listen, "unix", dir+"/used")
	for _, name := range []string{"/used", "/unused"} {
		must(t, os.Remove(dir+name))
		listen(t, net.Listen, "unix", dir+name)
	}
	set.TakeOver()
	set.RemoveFiles()
	for _, name := range []string{"/used", "/unused"} {
		if !exists(dir + name) {
			t.Errorf("the file %s of another program is gone", name)
		}
	}
}

// nobody is a user whose directories root does not trust.
const nobody = 65534

// If another user has led the path to a directory of root's by a link, the file
// that exists there is left alone, and a new one is made as before. In a
// directory of that user, and in one below it, everything works.
func TestListenWhereOthersWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	for _, test := range []struct {
		name string
		make func(t *testing.T, dir string) (path string)
		err  string // of Listen on a stale file
	}{
		{"their directory", func(t *testing.T, dir string) string {
			must(t, os.Chown(dir, nobody, nobody))
			return dir + "/sock"
		}, ""},
		{"below their directory", func(t *testing.T, dir string) string {
			must(t, os.Chown(dir, nobody, nobody))
			must(t, os.Mkdir(dir+"/run", 0o755))
			return dir + "/run/sock"
		}, ""},
		{"a sticky directory", func(t *testing.T, dir string) string {
			must(t, os.Chmod(dir, 0o777|os.ModeSticky))
			return dir + "/sock"
		}, ""},
		{"their link to their directory", func(t *testing.T, dir string) string {
			must(t, errors.Join(os.Mkdir(dir+"/run", 0o755), os.Chown(dir+"/run", nobody, nobody), os.Chown(dir, nobody, nobody), os.Symlink("run", dir+"/link")))
			return dir + "/link/sock"
		}, ""},
		{"their link to root's directory", func(t *testing.T, dir string) string {
			must(t, errors.Join(os.Mkdir(dir+"/run", 0o755), os.Mkdir(dir+"/vault", 0o755), os.Chown(dir+"/run", nobody, nobody), os.Symlink("../vault", dir+"/run/link")))
			return dir + "/run/link/sock"
		}, "user 65534 can replace"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := test.make(t, socketDir(t))
			set := newSet(t, Config{})
			ln, err := set.ListenWith(Options{UID: nobody, GID: nobody, Mode: 0o620}, "unix", path)
			must(t, err)
			defer ln.Close()
			var st unix.Stat_t
			must(t, unix.Lstat(path, &st))
			if st.Mode&0o777 != 0o620 || st.Uid != nobody || st.Gid != nobody || ln.Addr().String() != path {
				t.Errorf("mode %o, user %d, group %d, address %s", st.Mode, st.Uid, st.Gid, ln.Addr())
			}
			set.RemoveFiles()
			if exists(path) {
				t.Error("the file is left")
			}
			leaveStale(t, path)
			ln, err = newSet(t, Config{}).Listen("unix", path)
			if err == nil {
				ln.Close()
			}
			if (err == nil) != (test.err == "") || err != nil && (!strings.Contains(err.Error(), test.err) || !errors.Is(err, syscall.EADDRINUSE)) {
				t.Errorf("on a stale file: %v", err)
			}
			if !exists(path) {
				t.Error("there is no file")
			}
		})
	}
}

// An inherited socket's file to which another user may have led the path is not
// removed, unless the kernel has named it.
func TestTakeOverLedElsewhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	dir := socketDir(t)
	must(t, errors.Join(os.Mkdir(dir+"/run", 0o755), os.Chown(dir+"/run", nobody, nobody), os.Mkdir(dir+"/vault", 0o755)))
	made := bequest(t, "unix", dir+"/vault/other")
	defer fd.Close(made.FD)
	must(t, os.Symlink(dir+"/vault", dir+"/run/link"))
	file, err := inheritedFile(dir+"/run/link/other", made.FD)
	if err != nil {
		if kernelNames(t) || !strings.Contains(err.Error(), "user 65534 can replace") {
			t.Error(err)
		}
		return
	}
	defer file.close()
	if !file.exact {
		t.Error("the file is taken for that of the socket")
	}
}
