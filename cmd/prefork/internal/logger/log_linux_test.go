package logger

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// Files are rotated at the last line that fits, and so many are kept, also with
// stamps and in several directories.
func TestRotation(t *testing.T) {
	for _, row := range []struct {
		args       string
		dirs, most int // of a file's bytes
		least      int
	}{
		{"-s 5000 -n 3", 1, 5000, 5000 - 102},
		{"-s 70000 -n 3", 1, 70000, 70000 - 102},
		{"-s 5000 -n 3 -tt -p p:", 2, 5000, 5000 - 102 - 30},
		{"-s 5000 -n 3", 2, 5000, 5000 - 102},
	} {
		t.Run(row.args, func(t *testing.T) {
			top := t.TempDir()
			args := strings.Fields(row.args)
			for i := range row.dirs {
				args = append(args, filepath.Join(top, fmt.Sprint(i)))
			}
			p := newPipe(t)
			l := p.start("log", args...)
			var all strings.Builder
			for i := range 6000 {
				fmt.Fprintf(&all, "%s\n", strings.Repeat("x", i%100))
			}
			p.print("%s", all.String())
			p.print("last")
			p.end(l)
			for i := range row.dirs {
				dir := filepath.Join(top, fmt.Sprint(i))
				names := rotated(dir)
				if len(names) != 3 {
					t.Errorf("%d files", len(names))
				}
				for _, name := range names {
					content, err := os.ReadFile(filepath.Join(dir, name))
					if err != nil {
						t.Fatal(err)
					}
					if len(content) > row.most || len(content) < row.least || content[len(content)-1] != '\n' {
						t.Errorf("%s has %d bytes and ends with %q", name, len(content), content[len(content)-1])
					}
					if !regexp.MustCompile(`^@4[0-9a-f]{23}\.s$`).MatchString(name) || mode(t, filepath.Join(dir, name)) != 0o744 {
						t.Errorf("%s has mode %v", name, mode(t, filepath.Join(dir, name)))
					}
				}
				if len(args) == 5 && !strings.HasSuffix(all.String()+"last\n", contents(t, dir)) {
					t.Error("the files differ from the input")
				}
				if !strings.HasSuffix(contents(t, dir), "last\n") {
					t.Error("the last line is not complete")
				}
			}
		})
	}
}

// Current has mode 0644 while it is open and 0744 when it is closed. A file that a
// killed logger has written to becomes a .u file, and the next one a .s file.
func TestStateOfFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	current := filepath.Join(dir, "current")
	suffixes := func() (s string) {
		for _, name := range rotated(dir) {
			s += name[len(name)-1:]
		}
		return s
	}
	p := newPipe(t)
	l := p.start("log", "-n", "0", dir)
	p.print("a\nb")
	until(t, dir, "a\nb")
	if m := mode(t, current); m != 0o644 {
		t.Errorf("open: %v", m)
	}
	l.Signal(syscall.SIGTERM)
	expectStatus(t, l, 0)
	if m := mode(t, current); m != 0o744 {
		t.Errorf("closed: %v", m)
	}
	l = p.start("log", "-n", "0", dir)
	p.print("c\n")
	until(t, dir, "a\nbc\n")
	l.Signal(syscall.SIGALRM)
	preforktest.WaitFor(t, "current is rotated", func() bool { return suffixes() == "s" })
	p.print("d")
	until(t, dir, "a\nbc\nd")
	l.Kill()
	l.Wait()
	l = p.start("log", "-n", "0", dir)
	p.print("e\nf\ng")
	until(t, dir, "a\nbc\nde\nf\ng")
	l.Signal(syscall.SIGALRM) // within a line
	l.Signal(syscall.SIGHUP)  // which keeps what is known about the file
	p.print("h\n")
	preforktest.WaitFor(t, "current is rotated", func() bool { return suffixes() == "su" })
	p.print("i\n")
	until(t, dir, "a\nbc\nde\nf\ngh\ni\n")
	content, err := os.ReadFile(filepath.Join(dir, rotated(dir)[1]))
	if err != nil || string(content) != "de\nf\ngh\n" {
		t.Errorf("%q, %v", content, err)
	}
	l.Signal(syscall.SIGALRM)
	preforktest.WaitFor(t, "current is rotated", func() bool { return suffixes() == "sus" })
	l.Signal(syscall.SIGALRM) // of an empty file
	p.print("j")
	p.end(l)
	if got := contents(t, dir); suffixes() != "sus" || got != "a\nbc\nde\nf\ngh\ni\nj\n" {
		t.Errorf("%s, %q", suffixes(), got)
	}
}

// With stamps, a line tells that lines may come again.
func TestRestartedLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	p := newPipe(t)
	l := p.start("log", "-p", "p:", dir)
	p.print("a\nb")
	until(t, dir, "p:a\np:b")
	p.drained()
	l.Kill()
	l.Wait()
	p.print("c\n")
	l = p.start("log", "-p", "p:", dir)
	until(t, dir, "p:a\np:b\n-- restarted --\np:c\n")
	l.Signal(syscall.SIGTERM)
	expectStatus(t, l, 0)
	p.print("d\n")
	p.end(p.start("log", "-p", "p:", dir))
	if got := contents(t, dir); got != "p:a\np:b\n-- restarted --\np:c\np:d\n" {
		t.Errorf("%q", got)
	}
	// A logger was killed between two files.
	if err := os.Rename(filepath.Join(dir, "current"), filepath.Join(dir, nextName("", time.Now())+".s")); err != nil {
		t.Fatal(err)
	}
	p = newPipe(t)
	p.print("e\n")
	p.end(p.start("log", "-l", "9", dir))
	if got := contents(t, dir); !strings.HasSuffix(got, "p:d\n-- restarted --\ne\n") {
		t.Errorf("%q", got)
	}
}

// Two loggers cannot use a directory, whichever program they are.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	p := newPipe(t)
	first := p.start("log", dir)
	p.print("a\n")
	until(t, dir, "a\n")
	second := newPipe(t).start("log", dir)
	second.Expect("^prefork log: " + regexp.QuoteMeta(dir) + ": another logger uses the directory$")
	expectStatus(t, second, 111)
	first.Kill()
	first.Wait()
	path, err := exec.LookPath("svlogd")
	if err != nil {
		t.Log("without svlogd")
		return
	}
	svlogd := preforktest.Command(t, exec.Command(path, "-v", dir))
	svlogd.Cmd.Stdin = p.r
	svlogd.Start()
	p.print("b\n")
	until(t, dir, "a\nb\n") // it has made a .u file
	second = newPipe(t).start("log", dir)
	second.Expect("another logger")
	expectStatus(t, second, 111)
	p.w.Close()
	svlogd.Wait()
}

// Lines are changed as by svlogd.
func TestAsSvlogd(t *testing.T) {
	path := preforktest.NeedCommand(t, "svlogd", "Debian: apt-get install runit")
	for _, flag := range []string{"-t", "-tt", "-ttt", ""} {
		for _, prefix := range []string{"", "a prefix: "} {
			var got [2]string
			for i := range got {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "config"), []byte("p"+prefix+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				args := strings.Fields(flag)
				cmd := preforktest.Command(t, exec.Command(path, append(args, dir)...))
				if i == 1 {
					if prefix != "" {
						args = append(args, "-p", prefix)
					}
					cmd = preforktest.New(t, "log", append(args, dir)...)
				}
				cmd.Cmd.Stdin = strings.NewReader("one\n\n two\tthree\nfour\n")
				cmd.Start().Wait()
				stamp := regexp.MustCompile(`(?m)^(@4[0-9a-f]{23}|2\d{3}-\d\d-\d\d[_T]\d\d:\d\d:\d\d\.\d{5}) `)
				got[i] = stamp.ReplaceAllStringFunc(contents(t, dir), func(s string) string {
					return fmt.Sprintf("%c%d ", s[10], len(s))
				})
				if flag == "-t" {
					got[i] = regexp.MustCompile(`(?m)^.26 `).ReplaceAllString(got[i], "@ ")
				}
			}
			if got[0] != got[1] {
				t.Errorf("%s %q: svlogd %q, ours %q", flag, prefix, got[0], got[1])
			}
		}
	}
}

// After SIGTERM the logger writes the bytes that the pipe had, and leaves those that
// come later to the next one.
func TestTerm(t *testing.T) {
	for _, flags := range []string{"-s 0", "-s 100", "-p p"} {
		dir := t.TempDir()
		p := newPipe(t)
		l := p.open(append(strings.Fields(flags), dir)...)
		p.print("abc\nde")
		l.signals = make(chan os.Signal, 1)
		l.signals <- syscall.SIGTERM
		l.handleSignals()
		p.print("f\n")
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(contents(t, dir), "p", ""); got != "abc\nde" {
			t.Errorf("%s: %q", flags, got)
		}
	}
}

// A chunk is taken from the pipe by whole lines if it has any, so that one that
// comes again begins with a line.
func TestChunkOfLines(t *testing.T) {
	dir := t.TempDir()
	p := newPipe(t)
	l := p.open("-p", "p", dir)
	defer l.close()
	p.print("a\nb")
	for _, want := range []string{"pa\n", "pa\npb"} {
		if _, err := l.step(); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, dir); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// An empty file is not rotated, and is never too old. A full disk leaves -N files.
func TestDir(t *testing.T) {
	dir := t.TempDir()
	p := newPipe(t)
	l := p.open("-n", "0", "-N", "2", "-a", "1ms", dir)
	defer l.close()
	d := l.dirs[0]
	d.rotateSoon()
	if _, ok := d.untilOld(time.Now().Add(time.Hour)); ok || len(rotated(dir)) > 0 {
		t.Errorf("too old: %v, files: %v", ok, rotated(dir))
	}
	for range 4 {
		d.write([]byte("a\n"))
		d.rotateSoon()
	}
	names := rotated(dir)
	for range 3 {
		d.failed("write", syscall.ENOSPC)
	}
	if left := rotated(dir); len(names) != 4 || !slices.Equal(left, names[2:]) {
		t.Errorf("%v are left of %v", left, names)
	}
}

// A message to a closed stderr does not end the logger.
func TestClosedStderr(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "log")
	p, stderr := newPipe(t), newPipe(t)
	stderr.r.Close()
	cmd := exec.Command(self, dir)
	cmd.Env = preforktest.Environ(t, "log")
	cmd.Stdin, cmd.Stderr = p.r, stderr.w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.print("a\n")
	until(t, dir, "a\n")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p.print("b\n")
		p.drained()
	}
	p.w.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A file that is old is rotated, and an empty one is not.
func TestAge(t *testing.T) {
	dir := t.TempDir()
	p := newPipe(t)
	l := p.start("log", "-a", "20ms", dir)
	p.print("a\n")
	preforktest.WaitFor(t, "the file is rotated", func() bool { return len(rotated(dir)) == 1 })
	p.print("b\n")
	preforktest.WaitFor(t, "the file is rotated", func() bool { return len(rotated(dir)) == 2 })
	time.Sleep(60 * time.Millisecond)
	p.end(l)
	if names := rotated(dir); len(names) != 2 {
		t.Errorf("%v", names)
	}
}

// An input that is no pipe is read to its end.
func TestOtherInputs(t *testing.T) {
	text := strings.Repeat("a line\n", 30_000)
	file := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket, other := os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "other")
	defer socket.Close()
	conn, err := net.FileConn(other)
	other.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn.Write([]byte(text))
		conn.Close()
	}()
	for _, in := range []*os.File{in, socket} {
		dir := t.TempDir()
		l := preforktest.New(t, "log", "-s", "50000", dir)
		l.Cmd.Stdin = in
		expectStatus(t, l.Start(), 0)
		if got := contents(t, dir); got != text || len(rotated(dir)) != 4 {
			t.Errorf("%s: %d bytes in %v", in.Name(), len(got), rotated(dir))
		}
	}
}

// On a file system without splice, bytes are copied.
func TestWithoutSplice(t *testing.T) {
	dir := t.TempDir()
	p := newPipe(t)
	l := p.open("-s", "0", dir)
	// Splice refuses such a file.
	if _, err := unix.FcntlInt(uintptr(l.dirs[0].fd), unix.F_SETFL, unix.O_APPEND); err != nil {
		t.Fatal(err)
	}
	p.print("a\nb\n")
	p.w.Close()
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, dir); got != "a\nb\n" {
		t.Errorf("%q", got)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("file")
	for _, name := range []string{"dir", "link", "fifo"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "dir/current"), 0o700), os.Symlink("../file", filepath.Join(dir, "link/current")),
		unix.Mkfifo(filepath.Join(dir, "fifo/current"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]int{
		"": 100, "-x D": 100, "-s x D": 100, "-s -1 D": 100, "-n -1 D": 100, "-N -1 D": 100, "-N 10 D": 100, "-n 3 -N 3 D": 100, "-l -2 D": 100,
		"-a x D": 100, "-a -1s D": 100, "-* D": 100, "-- -* +a": 100, "D +a": 100, "- D -": 100, "-r xy D": 100, "-z=x D": 100,
		"D/file": 111, "D/none/none": 111, "D/dir": 111, "D/link": 111, "D/fifo": 111,
	} {
		var errs bytes.Buffer
		status := 0
		arguments := strings.Fields(strings.ReplaceAll(args, "D", dir))
		if want == 100 {
			status = Main("prefork log", arguments, &errs)
		} else { // it changes signals of the process
			l := preforktest.Start(t, "log", arguments...)
			l.WaitGone()
			status = l.Wait().ExitCode()
			errs.WriteString(strings.Join(l.Lines(), "\n"))
		}
		if status != want || !strings.HasPrefix(errs.String(), "prefork log: ") || strings.Contains(errs.String(), "usage") != (want == 100) {
			t.Errorf("%s: %d, %s", args, status, errs.String())
		}
	}
	for _, args := range [][]string{{"-p", "a\nb", dir}, {"+a\nb", dir}, {"-r", "\n", dir}, {"-r", "", dir}, {"+a", ""}} {
		if status := Main("prefork log", args, &bytes.Buffer{}); status != 100 {
			t.Errorf("%q: %d", args, status)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("%v", entries)
	}
}
