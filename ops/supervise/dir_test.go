//go:build unix

package supervise_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/ops/supervise"
	"github.com/prefork-go/prefork/preforktest"
)

// open opens the directory supervise of a service, and closes it with the test.
func open(t testing.TB, dir string) *supervise.Dir {
	t.Helper()
	d, err := supervise.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// modes returns the files of a directory with their modes.
func modes(t testing.TB, dir string) map[string]fs.FileMode {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]fs.FileMode)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = info.Mode()
	}
	return all
}

var running = supervise.Status{Since: time.Unix(1795908400, 7), PID: 4711, State: supervise.Run, Up: true}

// probe opens a FIFO as a client does.
func probe(path string) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err == nil {
		syscall.Close(fd)
	}
	return err
}

// say writes bytes to control in one write.
func say(t testing.TB, dir, bytes string) {
	t.Helper()
	f, err := os.OpenFile(dir+"/supervise/control", os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(bytes)
	must(t, err)
}

// The files have the names, the modes and the content of runsv's, whatever the
// umask.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0o077)
	d, err := supervise.Open(dir)
	if err == nil {
		err = d.Write(running)
	}
	syscall.Umask(old)
	must(t, err)
	want := map[string]fs.FileMode{"ok": fs.ModeNamedPipe | 0o600, "control": fs.ModeNamedPipe | 0o600,
		"lock": 0o600, "pid": 0o644, "stat": 0o644, "status": 0o644}
	got := modes(t, dir+"/supervise")
	for name, mode := range want {
		if got[name] != mode {
			t.Errorf("%s: %v, want %v", name, got[name], mode)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("further files: %v", got)
	}
	if mode := modes(t, dir)["supervise"]; mode != fs.ModeDir|0o700 {
		t.Errorf("supervise: %v", mode)
	}
	b, _ := running.MarshalBinary()
	for name, want := range map[string]string{"pid": "4711\n", "stat": "run\n", "status": string(b)} {
		if got := read(t, dir+"/supervise/"+name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	must(t, d.Close())
	dir = t.TempDir()
	d = open(t, dir)
	must(t, d.Write(supervise.Status{Since: running.Since}))
	if pid, stat := read(t, dir+"/supervise/pid"), read(t, dir+"/supervise/stat"); pid != "" || stat != "down\n" {
		t.Errorf("pid %q, stat %q", pid, stat)
	}
}

// Write replaces a file that differs, and leaves the others alone.
func TestWriteOnlyWhatDiffers(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	must(t, d.Write(running))
	must(t, d.WriteTally([]byte("tally")))
	files := func() (all []os.FileInfo) {
		for _, name := range []string{"pid", "stat", "status", "death_tally"} {
			info, err := os.Stat(dir + "/supervise/" + name)
			must(t, err)
			all = append(all, info)
		}
		return all
	}
	for _, row := range []struct {
		name  string
		write func() error
		want  [4]bool
	}{
		{"the same", func() error { return d.Write(running) }, [4]bool{}},
		{"the same tally", func() error { return d.WriteTally([]byte("tally")) }, [4]bool{}},
		{"another start", func() error { s := running; s.Since = s.Since.Add(1); return d.Write(s) }, [4]bool{false, false, true}},
		{"paused", func() error { s := running; s.Paused = true; return d.Write(s) }, [4]bool{false, true, true}},
		{"another pid", func() error { s := running; s.PID++; return d.Write(s) }, [4]bool{true, true, true}},
		{"another tally", func() error { return d.WriteTally(nil) }, [4]bool{false, false, false, true}},
	} {
		before := files()
		// The old files stay open, so that no new one gets their inode.
		var held []*os.File
		for _, info := range before {
			f, err := os.Open(dir + "/supervise/" + info.Name())
			must(t, err)
			held = append(held, f)
		}
		must(t, row.write())
		for i, info := range files() {
			if os.SameFile(info, before[i]) == row.want[i] {
				t.Errorf("%s: %s replaced: %v", row.name, info.Name(), !row.want[i])
			}
			held[i].Close()
		}
	}
	if got := modes(t, dir+"/supervise"); len(got) != 7 {
		t.Errorf("files: %v", got)
	}
}

// A write that fails leaves the old file and no new one, and the next Write tries
// it again.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	must(t, d.Write(running))
	must(t, os.Remove(dir+"/supervise/stat"))
	must(t, os.MkdirAll(dir+"/supervise/stat/sub", 0o700))
	paused := running
	paused.Paused = true
	if err := d.Write(paused); err == nil || !strings.Contains(err.Error(), "supervise/stat") {
		t.Errorf("Write: %v", err)
	}
	if _, err := os.Lstat(dir + "/supervise/stat.new"); err == nil {
		t.Error("stat.new is left")
	}
	must(t, os.RemoveAll(dir+"/supervise/stat"))
	for _, s := range []supervise.Status{running, paused} { // also the status before
		must(t, d.Write(s))
		if got := read(t, dir+"/supervise/stat"); got != s.String()+"\n" {
			t.Errorf("stat: %q, want %q", got, s)
		}
	}
	if err := d.Write(supervise.Status{PID: -1}); err == nil {
		t.Error("Write of a pid that does not exist")
	}
}

// What a killed supervisor has left is reused, with the owner and the mode that an
// administrator has given it.
func TestReuse(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	must(t, d.Write(running))
	must(t, d.Close())
	must(t, os.WriteFile(dir+"/supervise/status.new", []byte("half"), 0o600))
	must(t, os.Chmod(dir+"/supervise", 0o755))
	must(t, os.Chmod(dir+"/supervise/control", 0o620))
	before := modes(t, dir+"/supervise")
	delete(before, "status.new")
	d = open(t, dir)
	must(t, d.Write(running))
	after := modes(t, dir+"/supervise")
	for name, mode := range before {
		if after[name] != mode || len(before) != len(after) {
			t.Errorf("%s: %v, was %v", name, after[name], mode)
		}
	}
	if mode := modes(t, dir)["supervise"]; mode != fs.ModeDir|0o755 {
		t.Errorf("supervise: %v", mode)
	}
}

// supervise may be a link, also to a directory that does not exist yet.
func TestSuperviseIsLink(t *testing.T) {
	for _, row := range []struct{ name, target string }{
		{"relative", "../run/web"}, {"absolute", "/run/web"}, {"existing", "../old"},
	} {
		t.Run(row.name, func(t *testing.T) {
			base := t.TempDir()
			for _, sub := range []string{"web", "run", "old"} {
				must(t, os.Mkdir(base+"/"+sub, 0o755))
			}
			target := row.target
			if filepath.IsAbs(target) {
				target = base + target
			}
			must(t, os.Symlink(target, base+"/web/supervise"))
			d := open(t, base+"/web")
			must(t, d.Write(running))
			if filepath.IsAbs(target) == false {
				target = base + "/web/" + target
			}
			if got := read(t, target+"/stat"); got != "run\n" {
				t.Errorf("stat: %q", got)
			}
		})
	}
}

// A file that is none of runsv's kind is an error that names it, at once.
func TestStrangeFiles(t *testing.T) {
	for _, row := range []struct {
		name string
		make func(t *testing.T, dir string)
		want string
	}{
		{"supervise is a file", func(t *testing.T, dir string) { must(t, os.WriteFile(dir, nil, 0o600)) }, "supervise: not a directory"},
		{"link to nowhere", func(t *testing.T, dir string) { must(t, os.Symlink("none/none", dir)) }, "no such file"},
		{"link loop", func(t *testing.T, dir string) { must(t, os.Symlink("supervise", dir)) }, "too many"},
		{"control is a file", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.WriteFile(dir+"/control", nil, 0o600))
		}, "supervise/control: not a FIFO"},
		{"control is a link", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, syscall.Mkfifo(dir+"/fifo", 0o600))
			must(t, os.Symlink("fifo", dir+"/control"))
		}, "supervise/control: "},
		{"ok is a directory", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(dir+"/ok", 0o700))
		}, "supervise/ok: "},
		{"lock is a FIFO", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, syscall.Mkfifo(dir+"/lock", 0o600))
		}, "supervise/lock: not a regular file"},
		{"lock is a link", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Symlink("/dev/null", dir+"/lock"))
		}, "supervise/lock: symbolic link"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			row.make(t, dir+"/supervise")
			d, err := supervise.Open(dir)
			if err == nil || !strings.Contains(err.Error(), row.want) || errors.Is(err, supervise.ErrLocked) {
				t.Errorf("%v, %v, want %q", d, err, row.want)
			}
			if err == nil {
				d.Close()
			}
		})
	}
	if _, err := supervise.Open(t.TempDir() + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no service: %v", err)
	}
}

// A user who may only control the service leads root nowhere by a link, and a hard
// link of his harms no file.
func TestFilesOfOtherUser(t *testing.T) {
	preforktest.NeedRoot(t)
	const nobody = 65534
	dir := t.TempDir()
	secret := dir + "/secret"
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, os.Mkdir(dir+"/supervise", 0o700))
	must(t, os.Chown(dir+"/supervise", nobody, nobody))
	for _, name := range []string{"pid", "pid.new", "stat.new", "death_tally"} {
		must(t, os.Symlink(secret, dir+"/supervise/"+name))
	}
	for _, name := range []string{"status", "status.new", "stat"} {
		must(t, os.Link(secret, dir+"/supervise/"+name))
	}
	d := open(t, dir)
	must(t, d.Write(running))
	must(t, d.WriteTally([]byte("tally")))
	if got := read(t, secret); got != "secret" {
		t.Errorf("secret: %q", got)
	}
	for name, mode := range modes(t, dir+"/supervise") {
		if mode&fs.ModeSymlink != 0 {
			t.Errorf("%s: %v", name, mode)
		}
	}
	if got := read(t, dir+"/supervise/stat"); got != "run\n" {
		t.Errorf("stat: %q", got)
	}
	must(t, d.Close())
	must(t, os.Remove(dir+"/supervise/lock"))
	must(t, os.Link(secret, dir+"/supervise/lock"))
	if d, err := supervise.Open(dir); err == nil {
		d.Close()
		t.Error("opened a lock that is another file")
	}
}

// The owner of a service's directory may choose the place of supervise.
func TestLinkOfOtherUser(t *testing.T) {
	preforktest.NeedRoot(t)
	const nobody = 65534
	base := t.TempDir()
	must(t, os.Mkdir(base+"/web", 0o755))
	must(t, os.Symlink(base+"/run", base+"/web/supervise"))
	must(t, os.Lchown(base+"/web/supervise", nobody, nobody))
	must(t, os.Chown(base+"/web", nobody, nobody))
	must(t, open(t, base+"/web").Write(running))
	if got := read(t, base+"/run/stat"); got != "run\n" {
		t.Errorf("stat: %q", got)
	}
}

// A second Open fails, with the pid of the holder, and changes nothing. After Close
// the next one succeeds at once.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		d := open(t, dir)
		must(t, d.Write(running))
		second, err := supervise.Open(dir)
		var locked *supervise.LockedError
		if second != nil || !errors.Is(err, supervise.ErrLocked) || !errors.As(err, &locked) {
			t.Fatalf("%v, %v", second, err)
		}
		if want := os.Getpid(); locked.PID != want && runtime.GOOS == "linux" || !strings.Contains(locked.Path, "/supervise/lock") {
			t.Errorf("%+v, want pid %d", locked, want)
		}
		if err := probe(dir + "/supervise/ok"); err != nil {
			t.Errorf("ok: %v", err)
		}
		must(t, d.Close())
	}
	for _, row := range []struct {
		err  supervise.LockedError
		want string
	}{
		{supervise.LockedError{Path: "lock", PID: 7}, "lock is locked: process 7 runs this service"},
		{supervise.LockedError{Path: "lock"}, "lock is locked: another process runs this service"},
	} {
		if got := row.err.Error(); got != row.want {
			t.Error(got)
		}
	}
}

// ok and control have a reader from Open to Close.
func TestFIFOs(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	for range 2 { // clients come and go
		for _, name := range []string{"ok", "control"} {
			if err := probe(dir + "/supervise/" + name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	got := make(chan byte)
	say(t, dir, "u") // before Commands
	d.Commands(func(c byte) { got <- c })
	want := "u"
	for _, bytes := range []string{"tcu", "d", "\x00z\n\xff"} {
		say(t, dir, bytes)
		want += bytes
	}
	for _, c := range []byte(want) {
		if g := <-got; g != c {
			t.Fatalf("command %q, want %q of %q", g, c, want)
		}
	}
	must(t, d.Close())
	must(t, d.Close())
	for _, name := range []string{"ok", "control"} {
		if err := probe(dir + "/supervise/" + name); err != syscall.ENXIO {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Write(running); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if err := d.WriteTally(nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("WriteTally after Close: %v", err)
	}
}

// f may close the Dir, and gets no further byte then.
func TestCloseInCommands(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	got := make(chan byte, 3)
	say(t, dir, "xud")
	closed := make(chan error)
	d.Commands(func(c byte) { got <- c; closed <- d.Close() })
	must(t, <-closed)
	d = open(t, dir) // the old bytes of control are gone
	d.Commands(func(c byte) { got <- c })
	say(t, dir, "k")
	if first, second := <-got, <-got; first != 'x' || second != 'k' {
		t.Errorf("commands %q, %q", first, second)
	}
}

// More than a pipe holds arrives whole, and reading takes no thread while nothing
// is written.
func TestManyCommands(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	n := 0
	done := make(chan bool)
	d.Commands(func(c byte) {
		if n++; c == 'x' {
			close(done)
		}
	})
	say(t, dir, strings.Repeat("u", 200_000)+"x")
	<-done
	if n != 200_001 {
		t.Errorf("%d commands", n)
	}
}

func TestSetDown(t *testing.T) {
	dir := t.TempDir()
	for _, down := range []bool{false, true, true, false} {
		must(t, supervise.SetDown(dir, down))
		if _, err := os.Lstat(dir + "/down"); (err == nil) != down {
			t.Errorf("down %v: %v", down, err)
		}
	}
	must(t, os.WriteFile(dir+"/precious", []byte("precious"), 0o600))
	must(t, os.Symlink("precious", dir+"/down"))
	must(t, supervise.SetDown(dir, true))
	must(t, supervise.SetDown(dir, false))
	if got := read(t, dir+"/precious"); got != "precious" {
		t.Errorf("the target of a link: %q", got)
	}
	for _, down := range []bool{false, true} {
		if err := supervise.SetDown(dir+"/none", down); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no service: %v", err)
		}
	}
}
