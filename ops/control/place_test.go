//go:build unix

package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/safedir"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/client"
)

var ownerAlone = permissions{group: -1, readers: -1}

func openAt(t *testing.T, path string, perm permissions) (*socket, error) {
	t.Helper()
	s, err := open(Config{Path: path}, "x", perm)
	if err == nil {
		t.Cleanup(func() { s.remove(); s.close() })
	}
	return s, err
}

func TestPlaces(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	addresses := func(cfg Config) (all []string) {
		for _, p := range places(cfg, "web") {
			all = append(all, p.address)
		}
		return all
	}
	var byDefault []string
	if os.Geteuid() == 0 {
		byDefault = append(byDefault, "/run/prefork/web.prefork.sock")
	}
	if abstractNames {
		byDefault = append(byDefault, fmt.Sprintf("@prefork/%d/web", os.Geteuid()))
	}
	check := func(cfg Config, want ...string) {
		t.Helper()
		if got := addresses(cfg); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check(Config{}, byDefault...)
	t.Setenv("XDG_RUNTIME_DIR", "relative")
	check(Config{}, byDefault...)
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	withXDG := slices.Insert(slices.Clone(byDefault), len(byDefault)-1, "/run/user/7/prefork/web.prefork.sock")
	if abstractNames {
		check(Config{}, withXDG...)
	}
	t.Setenv("RUNTIME_DIRECTORY", "/run/web:/run/more")
	if got := addresses(Config{})[0]; got != "/run/web/web.prefork.sock" {
		t.Errorf("with RUNTIME_DIRECTORY: %s", got)
	}
	check(Config{Path: "/x/y"}, "/x/y")
	check(Config{Path: "@x"}, "@x")
	check(Config{Path: "off"})
	t.Setenv(client.EnvSocket, "/z")
	check(Config{Path: "off"}, "/z")
	t.Setenv(client.EnvSocket, "off")
	check(Config{Path: "/x/y"})
	for _, test := range [][2]string{
		{"/a/web.prefork.sock", "/a/web-%d.prefork.sock"}, {"@prefork/0/web", "@prefork/0/web-%d"}, {"/a/b.sock", "/a/b.sock-%d"},
	} {
		if got, want := (place{address: test[0]}).withPID(), fmt.Sprintf(test[1], os.Getpid()); got != want {
			t.Errorf("%s: %s, want %s", test[0], got, want)
		}
	}
}

func TestFileName(t *testing.T) {
	for name, want := range map[string]string{
		"web": "web", "a b/c\nd": "a_b_c_d", "..": "prefork", "": "prefork", "é": "_", strings.Repeat("x", 100): strings.Repeat("x", 64),
	} {
		if got := fileName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// The socket is born with a mode for its owner alone, whatever the umask, and gets
// that of the permissions.
func TestMode(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "s")
	old := syscall.Umask(0)
	f, err := bindFile(nil, "s", path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("born with mode %v, %v", info.Mode(), err)
	}
	os.Remove(path)
	gid := int64(os.Getegid())
	for _, test := range []struct {
		perm permissions
		want os.FileMode
	}{{ownerAlone, 0o600}, {permissions{group: gid, readers: -1}, 0o660}, {permissions{group: -1, readers: gid}, 0o666}, {permissions{group: gid, readers: gid}, 0o666}} {
		path := filepath.Join(testprog.SocketDir(t), "s")
		if _, err := openAt(t, path, test.perm); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != test.want {
			t.Errorf("%+v: %v, %v", test.perm, info.Mode(), err)
		}
		if st := info.Sys().(*syscall.Stat_t); test.perm.group >= 0 && int64(st.Gid) != gid {
			t.Errorf("group %d", st.Gid)
		}
	}
}

// A successor gives the socket that it has inherited its own mode and group, once it
// has taken over. The socket stays non-blocking for the predecessor, which accepts.
func TestInheritedMode(t *testing.T) {
	gid := int64(os.Getegid())
	for _, test := range []struct {
		before, after permissions
		want          os.FileMode
	}{
		{ownerAlone, permissions{group: gid, readers: -1}, 0o660},
		{permissions{group: -1, readers: gid}, ownerAlone, 0o600},
		{ownerAlone, ownerAlone, 0o600},
	} {
		path := filepath.Join(testprog.SocketDir(t), "s")
		first, err := openAt(t, path, test.before)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := fd.Raw(first.file)
		if err != nil {
			t.Fatal(err)
		}
		passed, err := fd.Duplicate(raw)
		if err != nil {
			t.Fatal(err)
		}
		s, err := adopt(os.NewFile(uintptr(passed), "passed"))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != os.FileMode(test.before.mode()) {
			t.Errorf("before the takeover: %v, %v", info, err)
		}
		if err := s.claim(test.after); err != nil {
			t.Error(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != test.want {
			t.Errorf("after it: %v, %v, want %v", info.Mode(), err, test.want)
		}
		if flags, err := unix.FcntlInt(raw, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
		s.close()
	}
}

func TestTooLong(t *testing.T) {
	dir := testprog.SocketDir(t)
	fits := filepath.Join(dir, strings.Repeat("x", 107-len(dir)-1))
	if abstractNames { // BSD takes 103 bytes
		if _, err := openAt(t, fits, ownerAlone); err != nil {
			t.Errorf("107 bytes: %v", err)
		}
	}
	for _, path := range []string{fits + "x", "@" + strings.Repeat("x", 107)} {
		if _, err := openAt(t, path, ownerAlone); err == nil || !strings.Contains(err.Error(), "at most 107 bytes, and this one has 108") {
			t.Errorf("108 bytes: %v", err)
		}
	}
}

// A dead socket is replaced, a living one and any other file never.
func TestPredecessor(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "web.prefork.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	s, err := openAt(t, path, ownerAlone)
	if err != nil {
		t.Fatal(err)
	}
	second, err := openAt(t, path, ownerAlone)
	if want := (place{address: path}).withPID(); err != nil || second.address != want {
		t.Fatalf("beside a living one: %v, %v", second, err)
	}
	second.remove()
	if !isAlive(path) {
		t.Error("the first one's socket is gone")
	}
	s.remove()
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	for _, make := range []func() error{
		func() error { return os.WriteFile(path, []byte("x"), 0o600) },
		func() error { return os.Mkdir(path, 0o700) },
		func() error { return syscall.Mkfifo(path, 0o600) },
		func() error { return os.Symlink("nowhere", path) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if _, err := openAt(t, path, ownerAlone); err == nil || !strings.Contains(err.Error(), "in the way, and no socket") {
			t.Errorf("%v", err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the file is gone: %v", err)
		}
		os.Remove(path)
	}
}

// Of two managers that replace a dead socket at once, the slower one does not
// remove the new socket of the other.
func TestReplacedSince(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "s")
	dir, err := safedir.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil { // in place of a dead socket
		t.Fatal(err)
	}
	examined, err := dir.Lstat("s")
	if err != nil {
		t.Fatal(err)
	}
	os.Rename(path, path+"old") // so that the new one has another inode
	defer os.Remove(path + "old")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := removeSame(dir, "s", examined); !errors.Is(err, safedir.ErrReplaced) || !isAlive(path) {
		t.Errorf("%v", err)
	}
	os.Rename(path+"old", path)
	if err := removeSame(dir, "s", examined); err != nil {
		t.Error(err)
	}
	if names, _ := dir.Names(); len(names) != 0 {
		t.Errorf("left: %q", names)
	}
}

// A socket that another process has put in the place of ours is not removed.
func TestRemoveOnlyOwn(t *testing.T) {
	path := filepath.Join(testprog.SocketDir(t), "s")
	s, err := openAt(t, path, ownerAlone)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s.remove()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the other one is gone: %v", err)
	}
}

func TestDirectories(t *testing.T) {
	dir := testprog.SocketDir(t)
	openIn := func(mode os.FileMode) error {
		path := filepath.Join(dir, "d"+mode.String())
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		os.Chmod(path, mode)
		s, err := open(Config{Path: filepath.Join(path, "s")}, "x", ownerAlone)
		if err == nil {
			s.remove()
			s.close()
		}
		return errors.Join(err, os.Remove(path))
	}
	for _, mode := range []os.FileMode{0o700, 0o755, 0o777 | os.ModeSticky} {
		if err := openIn(mode); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o777, 0o770} {
		if err := openIn(mode); err == nil {
			t.Errorf("a socket in a directory of mode %v, in which others can replace it", mode)
		}
	}
	if _, err := openAt(t, filepath.Join(dir, "missing", "s"), ownerAlone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// The default directories are made, and those that cannot be made are skipped.
func TestDefaultPlaces(t *testing.T) {
	dir := testprog.SocketDir(t)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("RUNTIME_DIRECTORY", filepath.Join(dir, "missing"))
	oldDir := rootDir
	rootDir = filepath.Join(dir, "run")
	defer func() { rootDir = oldDir }()
	name := fmt.Sprintf("test%d", os.Getpid())
	old := syscall.Umask(0)
	s, err := open(Config{}, name, ownerAlone)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(filepath.Join(dir, "prefork"))
	defer os.RemoveAll(rootDir)
	defer s.close()
	defer s.remove()
	want := filepath.Join(dir, "prefork")
	if os.Geteuid() == 0 {
		want = rootDir
	}
	if s.address != filepath.Join(want, name+".prefork.sock") {
		t.Errorf("at %s", s.address)
	}
	if info, err := os.Stat(want); err != nil || os.Geteuid() != 0 && info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestAbstractName(t *testing.T) {
	if !abstractNames {
		if _, err := openAt(t, "@x", ownerAlone); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v", err)
		}
		return
	}
	name := fmt.Sprintf("@prefork/%d/test%d", os.Geteuid(), os.Getpid())
	s, err := openAt(t, name, ownerAlone)
	if err != nil || s.address != name {
		t.Fatalf("%v, %v", s, err)
	}
	second, err := openAt(t, name, ownerAlone)
	if err != nil || second.address != (place{address: name}).withPID() {
		t.Errorf("beside a living one: %v, %v", second, err)
	}
	found, err := client.Find()
	if err != nil || !slices.ContainsFunc(found, func(f client.Found) bool { return f.Socket == name && f.PID == os.Getpid() && f.UID == os.Geteuid() }) {
		t.Errorf("not found: %v, %v", found, err)
	}
}
