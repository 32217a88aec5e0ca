//go:build unix && !solaris && !aix

package safedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nobody is a user who is neither root nor, unless the tests run as that user,
// the caller.
const nobody = 65534

// open opens a directory that must not be refused.
func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mkdir makes a directory with an owner and a mode, whatever the umask; -1 is
// this user.
func mkdir(t *testing.T, path string, uid int, mode os.FileMode) string {
	t.Helper()
	must(t, os.Mkdir(path, 0o700))
	must(t, os.Chmod(path, mode))
	give(t, path, uid)
	return path
}

// give gives a file, also a link, to another user.
func give(t *testing.T, path string, uid int) {
	t.Helper()
	if uid != -1 {
		must(t, os.Lchown(path, uid, -1))
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
}

// base is a directory into which no other user can lead a path.
func base(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	if _, err, _ := followPath(dir); err != nil {
		t.Skipf("the directory of temporary files can be replaced: %v", err)
	}
	return dir
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// kinds are the files that can stand at a name, and whether they are regular
// files with one name.
var kinds = map[string]struct {
	make    func(t *testing.T, dir string)
	regular bool
	words   string // of the error of OpenFile
}{
	"file":          {func(t *testing.T, dir string) { write(t, dir+"/name", "old") }, true, ""},
	"link":          {func(t *testing.T, dir string) { must(t, os.Symlink("target", dir+"/name")) }, false, "symbolic link"},
	"dangling link": {func(t *testing.T, dir string) { must(t, os.Symlink("nowhere", dir+"/name")) }, false, "symbolic link"},
	"link to itself": {func(t *testing.T, dir string) { must(t, os.Symlink("name", dir+"/name")) }, false,
		"symbolic link"},
	"hard link": {func(t *testing.T, dir string) { must(t, os.Link(dir+"/target", dir+"/name")) }, false, "hard links"},
	"FIFO":      {func(t *testing.T, dir string) { must(t, unix.Mkfifo(dir+"/name", 0o600)) }, false, "not a regular file"},
	"directory": {func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/name", 0o700)) }, false, "not a regular file"},
	"socket": {func(t *testing.T, dir string) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(t, err)
		defer unix.Close(fd)
		t.Chdir(dir) // the path may be too long
		must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "name"}))
	}, false, "not a regular file"},
}

// OpenFile opens only a regular file with one name, in each access mode and
// without blocking, and changes no other. Create opens none that exists.
func TestOpenFileKinds(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			dir := base(t)
			write(t, dir+"/target", "secret")
			kind.make(t, dir)
			d := open(t, dir)
			for _, access := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR | unix.O_APPEND} {
				for _, perm := range []uint32{0, 0o644} {
					f, err := d.OpenFile("name", access, perm)
					if err == nil {
						f.Close()
					}
					if kind.regular != (err == nil) || err != nil && !strings.Contains(err.Error(), kind.words) {
						t.Errorf("access %#x, permissions %o: %v", access, perm, err)
					}
				}
			}
			if f, err := d.Create("name", 0o644); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Create: %v, %v", f, err)
			}
			if got, err := os.ReadFile(dir + "/target"); string(got) != "secret" || err != nil {
				t.Errorf("the target has %q, %v", got, err)
			}
			if _, err := os.Lstat(dir + "/nowhere"); err == nil {
				t.Error("the target of a link was created")
			}
		})
	}
}

// A missing file is created only on request, with its permissions.
func TestCreate(t *testing.T) {
	dir := base(t)
	d := open(t, dir)
	if _, err := d.OpenFile("new", unix.O_RDWR, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no permissions: %v", err)
	}
	for name, call := range map[string]func(string) (*os.File, error){
		"OpenFile": func(name string) (*os.File, error) { return d.OpenFile(name, unix.O_RDWR, 0o600) },
		"Create":   func(name string) (*os.File, error) { return d.Create(name, 0o600) },
	} {
		f, err := call(name)
		must(t, err)
		defer f.Close()
		f.WriteString("text")
		got, err := os.ReadFile(dir + "/" + name)
		info, serr := os.Stat(dir + "/" + name)
		if string(got) != "text" || err != nil || serr != nil || info.Mode() != 0o600 || f.Name() != dir+"/"+name {
			t.Errorf("%s: %q, %v, %v, %s", name, got, info, err, f.Name())
		}
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: not close-on-exec", name)
		}
		if !d.Holds(name, f) {
			t.Errorf("%s: the name is not that of the file", name)
		}
		must(t, os.Remove(dir+"/"+name))
		write(t, dir+"/"+name, "")
		if d.Holds(name, f) {
			t.Errorf("%s: the name is that of another file", name)
		}
		must(t, os.Remove(dir+"/"+name))
		if d.Holds(name, f) {
			t.Errorf("%s: there is no file", name)
		}
	}
}

// Of two that create one file at once, both get it, or one an error that asks for
// another attempt.
func TestCreateRace(t *testing.T) {
	dir := base(t)
	d := open(t, dir)
	for range 500 {
		begin, errs := make(chan bool), make(chan error)
		for range 2 {
			go func() {
				<-begin
				f, err := d.OpenFile("new", unix.O_RDWR, 0o600)
				if err == nil {
					f.Close()
				}
				errs <- err
			}()
		}
		close(begin)
		for range 2 {
			if err := <-errs; err != nil && !errors.Is(err, ErrReplaced) {
				t.Error(err)
			}
		}
		must(t, d.Remove("new"))
	}
}

// A link to the open file is not that file.
func TestHoldsNoLink(t *testing.T) {
	dir := base(t)
	d := open(t, dir)
	f, err := d.Create("file", 0o600)
	must(t, err)
	defer f.Close()
	must(t, os.Symlink("file", dir+"/link"))
	if d.Holds("link", f) {
		t.Error("a link counts as the file")
	}
}

// OpenFile truncates nothing: it would do so before it has seen the file.
func TestOpenFileTruncatesNothing(t *testing.T) {
	dir := base(t)
	write(t, dir+"/target", "secret")
	must(t, os.Link(dir+"/target", dir+"/name"))
	d := open(t, dir)
	if f, err := d.OpenFile("name", unix.O_RDWR|unix.O_TRUNC, 0); err == nil {
		t.Errorf("opened: %v", f)
	}
	if got, _ := os.ReadFile(dir + "/target"); string(got) != "secret" {
		t.Errorf("the file has %q", got)
	}
}

// A file without a name was removed while it was being opened.
func TestRemovedWhileOpening(t *testing.T) {
	st := unix.Stat_t{Mode: unix.S_IFREG}
	if err := checkKind(&st); !errors.Is(err, ErrReplaced) {
		t.Error(err)
	}
}

// renames are the ways to rename without replacing a file.
var renames = map[string]func(d *Dir, from, to string) error{
	"Rename":        (*Dir).Rename,
	"linkAndUnlink": func(d *Dir, from, to string) error { return linkAndUnlink(int(d.Fd()), from, to) },
}

// Rename replaces no file of any kind, and keeps both names. It renames the link
// itself.
func TestRename(t *testing.T) {
	for how, rename := range renames {
		for name, kind := range kinds {
			t.Run(how+" to a "+name, func(t *testing.T) {
				dir := base(t)
				write(t, dir+"/target", "secret")
				kind.make(t, dir)
				write(t, dir+"/from", "from")
				d := open(t, dir)
				before, err := d.Lstat("name")
				must(t, err)
				if err := rename(d, "from", "name"); !errors.Is(err, fs.ErrExist) {
					t.Errorf("error %v", err)
				}
				after, err := d.Lstat("name")
				if err != nil || !SameFile(before, after) || !isFile(dir+"/from", "from") {
					t.Errorf("a file is replaced: %v", err)
				}
			})
		}
		t.Run(how, func(t *testing.T) {
			dir := base(t)
			d := open(t, dir)
			if err := rename(d, "from", "to"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("no file: %v", err)
			}
			write(t, dir+"/from", "from")
			must(t, rename(d, "from", "to"))
			if names, err := d.Names(); !isFile(dir+"/to", "from") || len(names) != 1 {
				t.Errorf("%v, %v", names, err)
			}
			must(t, os.Symlink("to", dir+"/link"))
			must(t, rename(d, "link", "link2"))
			if target, err := os.Readlink(dir + "/link2"); target != "to" || err != nil {
				t.Errorf("%s, %v", target, err)
			}
		})
	}
}

// Of two that rename one file at once, one succeeds, and the file has one name.
func TestRenameRace(t *testing.T) {
	for how, rename := range renames {
		t.Run(how, func(t *testing.T) {
			dir := base(t)
			d := open(t, dir)
			for range 200 {
				write(t, dir+"/from", "from")
				begin, errs := make(chan bool), make(chan error)
				for _, to := range []string{"a", "b"} {
					go func() {
						<-begin
						errs <- rename(d, "from", to)
					}()
				}
				close(begin)
				first, second := <-errs, <-errs
				names, err := d.Names()
				if (first == nil) == (second == nil) || len(names) != 1 || err != nil {
					t.Fatalf("%v, %v: names %v, %v", first, second, names, err)
				}
				must(t, d.Remove(names[0]))
			}
		})
	}
}

func isFile(path, content string) bool {
	got, err := os.ReadFile(path)
	return err == nil && string(got) == content
}

// Remove removes each kind of file, and no target of a link. A directory with
// files stays.
func TestRemove(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			dir := base(t)
			write(t, dir+"/target", "secret")
			kind.make(t, dir)
			d := open(t, dir)
			must(t, d.Remove("name"))
			if _, err := d.Lstat("name"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is left: %v", err)
			}
			if !isFile(dir+"/target", "secret") {
				t.Error("the target is gone")
			}
			if err := d.Remove("name"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("no file: %v", err)
			}
		})
	}
	dir := base(t)
	must(t, os.Mkdir(dir+"/full", 0o700))
	write(t, dir+"/full/file", "")
	if err := open(t, dir).Remove("full"); !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) || !isFile(dir+"/full/file", "") {
		t.Errorf("a directory with files: %v", err)
	}
}

// Lstat and errors do not follow links, and name the whole path.
func TestLstat(t *testing.T) {
	dir := base(t)
	must(t, os.Symlink("nowhere", dir+"/link"))
	d := open(t, dir)
	if st, err := d.Lstat("link"); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := d.Lstat("none"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir+"/none") {
		t.Error(err)
	}
}

// Names returns all names each time, however often it is called, and works after
// the directory was renamed.
func TestNames(t *testing.T) {
	dir := mkdir(t, base(t)+"/dir", -1, 0o700)
	d := open(t, dir)
	want := []string{"a", "b", "c"}
	for _, name := range want {
		write(t, dir+"/"+name, "")
	}
	must(t, os.Rename(dir, dir+"2"))
	for range 2 {
		names, err := d.Names()
		if slices.Sort(names); err != nil || !slices.Equal(names, want) {
			t.Errorf("%v, %v", names, err)
		}
	}
}

// A directory that is renamed or replaced stays the one that is used, and InPlace
// reports it.
func TestInPlace(t *testing.T) {
	dir := mkdir(t, base(t)+"/dir", -1, 0o700)
	must(t, os.Symlink(dir, dir+".link"))
	d, byLink := open(t, dir), open(t, dir+".link")
	if d.Path() != dir || byLink.Path() != dir+".link" {
		t.Errorf("paths %s, %s", d.Path(), byLink.Path())
	}
	check := func(when string, d *Dir, want bool, wantErr error) {
		t.Helper()
		if got, err := d.InPlace(); got != want || !errors.Is(err, wantErr) {
			t.Errorf("%s: in place %t, %v", when, got, err)
		}
	}
	check("opened", d, true, nil)
	check("opened by a link", byLink, true, nil)
	must(t, os.Rename(dir, dir+"2"))
	check("renamed", d, false, fs.ErrNotExist)
	mkdir(t, dir, -1, 0o700)
	check("replaced", d, false, nil)
	check("replaced, by a link", byLink, false, nil)
	f, err := d.Create("file", 0o600)
	must(t, err)
	f.Close()
	if _, err := os.Lstat(dir + "2/file"); err != nil {
		t.Errorf("the file is not in the directory that was opened: %v", err)
	}
	must(t, os.Remove(dir))
	must(t, os.Symlink(dir+"2", dir))
	check("linked back", d, true, nil)
}

// A relative path is that of the time of Open.
func TestRelativePath(t *testing.T) {
	dir := base(t)
	mkdir(t, dir+"/sub", -1, 0o700)
	t.Chdir(dir)
	d := open(t, "sub")
	t.Chdir("/")
	if here, err := d.InPlace(); !here || d.Path() != dir+"/sub" {
		t.Errorf("%s, %v", d.Path(), err)
	}
}

// Open opens nothing but directories, does not block on a FIFO, and leaves no
// descriptor open.
func TestOpenKinds(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			dir := base(t)
			write(t, dir+"/target", "secret")
			kind.make(t, dir)
			d, err := Open(dir + "/name")
			if err == nil {
				d.Close()
			}
			var pathErr *fs.PathError
			if name == "directory" != (err == nil) || err != nil && (!errors.As(err, &pathErr) || pathErr.Path != dir+"/name") {
				t.Errorf("error %v", err)
			}
		})
	}
	if _, err := Open(base(t) + "/none/dir"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
