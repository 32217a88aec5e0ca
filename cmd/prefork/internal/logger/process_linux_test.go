package logger

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// A processing is a logger in this process whose rotated files are processed.
type processing struct {
	*logger
	t   *testing.T
	p   *pipe
	dir string

	mu       sync.Mutex
	messages []string
}

func newProcessing(t *testing.T, dir string, args ...string) *processing {
	t.Helper()
	l := &processing{t: t, p: newPipe(t), dir: dir}
	o, err := parse(append(args, dir))
	if err != nil {
		t.Fatal(err)
	}
	l.logger = newLogger(o, int(l.p.r.Fd()))
	err = l.open(func(format string, args ...any) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.messages = append(l.messages, fmt.Sprintf(format, args...))
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// file has the logger write a file and rotate it.
func (l *processing) file(text string) {
	l.t.Helper()
	l.p.print("%s", text)
	if _, err := l.step(); err != nil {
		l.t.Fatal(err)
	}
	l.dirs[0].rotateSoon()
}

// reported returns the messages, each without the path and the name of a file.
func (l *processing) reported() (messages []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.messages {
		m = strings.ReplaceAll(m, l.dir, "DIR")
		if i := strings.IndexByte(m, '@'); i >= 0 {
			m = m[:i] + "@" + m[i+stampLength:]
		}
		messages = append(messages, m)
	}
	return messages
}

// suffixes returns the ends of the names of all files with a time.
func suffixes(dir string) (s string) {
	names, _ := filepath.Glob(filepath.Join(dir, "@????????????????????????.*"))
	for _, name := range names {
		s += filepath.Base(name)[stampLength:]
	}
	return s
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

// Rotated files are compressed, and counted as others. What a killed logger has
// left is removed or compressed.
func TestGzip(t *testing.T) {
	dir := t.TempDir()
	names := []string{nextName("", time.Unix(1, 0)), nextName("", time.Unix(2, 0)), nextName("", time.Unix(3, 0))}
	write(t, dir, names[0]+".s", "killed between the two names\n")
	write(t, dir, names[0]+".u", "killed between the two names\n")
	write(t, dir, names[1]+".u", "killed while it is compressed\n")
	write(t, dir, names[1]+".t", "killed whi")
	write(t, dir, names[2]+".t", "of a file that was removed")
	write(t, dir, "@"+strings.Repeat("x", 24)+".t", "of another program")
	l := newProcessing(t, dir, "-z", "-n", "4", "-s", "30")
	text := ""
	for i := range 3 {
		if i == 2 { // only now, so that the file of names[0] is not removed before
			preforktest.WaitFor(t, "the files of the last logger are done", func() bool { return exists(dir, names[1]+".s.gz") && !exists(dir, names[1]+".u") })
			if exists(dir, names[0]+".u") || exists(dir, names[0]+".s.gz") {
				t.Error("a file that was processed is processed again")
			}
		}
		line := strings.Repeat(fmt.Sprint(i), 25) + "\n"
		text += line
		l.file(line)
	}
	l.close()
	if got := contents(t, dir); got != "killed while it is compressed\n"+text || suffixes(dir) != ".s.gz.s.gz.s.gz.s.gz.t" {
		t.Errorf("%s, %q", suffixes(dir), got)
	}
	for _, name := range rotated(dir) {
		if m := mode(t, filepath.Join(dir, name)); m != 0o744 {
			t.Errorf("%s has mode %v", name, m)
		}
	}
	if m := l.reported(); len(m) > 0 {
		t.Errorf("%q", m)
	}
	// The end of the input waits for it, too.
	l = newProcessing(t, dir, "-z", "-n", "0")
	l.file("a\n")
	l.p.w.Close()
	if err := l.run(); err != nil || suffixes(dir) != ".s.gz.s.gz.s.gz.s.gz.s.gz.t" {
		t.Errorf("%v, %s", err, suffixes(dir))
	}
}

// A command processes each file as below svlogd, with the state of the one before.
// While it runs, the logger goes on, rotates, and removes the oldest files.
func TestProcessor(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "go"), 0o600); err != nil {
		t.Fatal(err)
	}
	allow, err := os.OpenFile(filepath.Join(dir, "go"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer allow.Close()
	write(t, dir, "config", "n3\n!read x <go; cat <&4; cat; cat <&4 >&5; echo . >&5; pwd -P >place")
	l := newProcessing(t, dir, "-z")
	for i := range 5 {
		l.file(fmt.Sprintln(i))
	}
	preforktest.WaitFor(t, "a file is being processed", func() bool { return strings.Contains(suffixes(dir), ".t") })
	if s := strings.ReplaceAll(suffixes(dir), ".t", ""); s != ".u.u.u" || contents(t, dir) != "2\n3\n4\n" {
		t.Errorf("%s, %q", s, contents(t, dir))
	}
	allow.WriteString("\n\n\n\n\n")
	preforktest.WaitFor(t, "all are processed", func() bool { return suffixes(dir) == ".s.s.s" })
	l.close()
	states := contents(t, dir)
	if got := strings.ReplaceAll(states, ".\n", ""); got != "2\n3\n4\n" || !strings.Contains(states, ".\n4\n") {
		t.Errorf("%q", states)
	}
	place, _ := os.ReadFile(filepath.Join(dir, "place"))
	if want, _ := filepath.EvalSymlinks(dir); string(place) != want+"\n" {
		t.Errorf("it was run in %q, want %q", place, want)
	}
	if m := l.reported(); len(m) > 0 {
		t.Errorf("%q", m)
	}
}

// A command that fails is tried again, also when the configuration has changed, and
// its file is kept.
func TestProcessorFails(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "config", "!echo a part; exit 3")
	l := newProcessing(t, dir)
	l.file("a\n")
	preforktest.WaitFor(t, "a failure", func() bool { return len(l.reported()) == 1 })
	l.file("b\n")
	preforktest.WaitFor(t, "no output is left", func() bool { return suffixes(dir) == ".u.u" })
	write(t, dir, "config", "!test -e allowed && tr a-z A-Z")
	write(t, dir, "allowed", "")
	l.signals = make(chan os.Signal, 1)
	l.signals <- syscall.SIGHUP
	l.handleSignals()
	preforktest.WaitFor(t, "files are processed", func() bool { return suffixes(dir) == ".s.s" })
	if got := contents(t, dir); got != "A\nB\n" {
		t.Errorf("%q", got)
	}
	if err := os.Remove(filepath.Join(dir, "allowed")); err != nil {
		t.Fatal(err)
	}
	l.file("c\n")
	l.close() // does not wait for ever
	want := []string{
		"DIR: cannot process @.u, and tries again: echo a part; exit 3: exit status 3",
		"DIR: processes files again",
	}
	m := l.reported()
	if last := m[len(m)-1]; !slices.Equal(m[:2], want) || last != "DIR: leaves @.u to the next logger: test -e allowed && tr a-z A-Z: exit status 1" {
		t.Errorf("%q", m)
	}
	if n := strings.Count(strings.Join(m, "\n"), want[1]); n != 1 {
		t.Errorf("it has reported %d times that it goes on: %q", n, m)
	}
	if got := contents(t, dir); got != "A\nB\nc\n" || suffixes(dir) != ".s.s.u" {
		t.Errorf("%s, %q", suffixes(dir), got)
	}
}

// The names of the last files are kept, and a file with two names is one.
func TestBeyond(t *testing.T) {
	var names []string
	for i, suffix := range []string{".s", ".s.gz", ".s", ".u", ".u"} {
		second := int64(i + 1)
		if i == 3 {
			second = 3
		}
		names = append(names, nextName("", time.Unix(second, 0))+suffix)
	}
	for keep, want := range []int{5, 4, 2, 1, 0, 0} {
		if got := beyond(names, keep); len(got) != want {
			t.Errorf("%d: %d names, want %d", keep, len(got), want)
		}
	}
}

// Other names are not touched.
func TestSuffix(t *testing.T) {
	stamp := "@0123456789abcdef01234567"
	for name, want := range map[string]string{
		stamp + ".s": "s", stamp + ".u": "u", stamp + ".t": "t", stamp + ".s.gz": "s.gz", stamp + ".": "",
		stamp: "", "": "", stamp + "s": "", stamp + "8.s": "", stamp[:24] + ".s": "", "_" + stamp[1:] + ".s": "",
		"@0123456789ABCDEF01234567.s": "", "@0123456789abcdef0123456g.s": "", " " + stamp + ".s": "", "current": "", "config": "",
	} {
		if got := suffix(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
