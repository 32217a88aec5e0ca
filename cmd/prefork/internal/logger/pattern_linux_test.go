package logger

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

// logAll has a logger in this process read an input to its end. It returns the
// lines that it has written to the standard error.
func logAll(t *testing.T, in string, args ...string) (errs string) {
	t.Helper()
	p := newPipe(t)
	l := p.open(args...)
	var alerts bytes.Buffer
	l.errs = &alerts
	go func() {
		p.w.WriteString(in)
		p.w.Close()
	}()
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	return alerts.String()
}

// random returns a text of some of the characters.
func random(r *rand.Rand, of string, length int) string {
	b := make([]byte, r.IntN(length+1))
	for i := range b {
		b[i] = of[r.IntN(len(of))]
	}
	return string(b)
}

// Patterns of the command line act as those of multilog, each on the directories
// after it.
func TestPatternsAsMultilog(t *testing.T) {
	multilog := preforktest.NeedCommand(t, "multilog", "Debian: apt-get install daemontools")
	long := strings.Repeat("a", 1000)
	in := "\n\x00\n\xff\x00a\n" + long + "\n" + long + "b\n" + long[1:] + "\n" + long[1:] + "b\n" + strings.Repeat(long, 80) + "\n"
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		in += random(r, "ab*+\x00", 5) + "\n"
	}
	scripts := [][]string{{"-*", "+" + long, "1"}, {"-" + long[1:], "1"}, {"-" + long + "b", "-*b", "1"}, {"-", "1"}}
	for range 15 {
		var script []string
		for dir := range 2 {
			for range r.IntN(4) {
				script = append(script, string("+-"[r.IntN(2)])+random(r, "ab**+", 4))
			}
			script = append(script, fmt.Sprint(dir))
		}
		scripts = append(scripts, script)
	}
	for _, script := range scripts {
		var args [2][]string
		var got [2]string
		for i := range args {
			dir := t.TempDir()
			for _, arg := range script {
				if arg[0] != '+' && arg[0] != '-' {
					arg = filepath.Join(dir, arg)
				}
				args[i] = append(args[i], arg)
			}
			if i == 0 {
				cmd := exec.Command(multilog, args[i]...)
				cmd.Stdin = strings.NewReader(in)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			} else {
				logAll(t, in, append([]string{"--"}, args[i]...)...)
			}
			dirs, _ := filepath.Glob(dir + "/?")
			for _, dir := range dirs {
				got[i] += contents(t, dir) + "end of a directory\n"
			}
		}
		if got[0] != got[1] {
			t.Errorf("%.40q: multilog %.300q, ours %.300q", script, got[0], got[1])
		}
	}
}

// A file config means the same as for svlogd.
func TestConfigAsSvlogd(t *testing.T) {
	svlogd := preforktest.NeedCommand(t, "svlogd", "Debian: apt-get install runit")
	long := strings.Repeat("a", 1000)
	r := rand.New(rand.NewPCG(3, 4))
	// Lines end in z, and nothing in a pattern follows a z: at the end of a line,
	// svlogd compares a plus with bytes of other lines, and has a plus before it match
	// if the pattern goes on.
	in := "an error z\n"
	for range 300 {
		in += random(r, "ab+\x00\xe9", 6) + "z\n"
	}
	configs := []string{
		"", "# comment\n\n-a*", "-*\n+*error*", "pa prefix: \ne*\n", "-*\ne*error*\np:", "e*\nE*z\n", "e*z\ne*error*\n", "zzz\n-a*\n",
		"e*\n-" + long, "e" + long + "\n-" + long[1:] + "\n", "e" + long[1:] + "\n-" + long + "b\n",
	}
	for range 25 {
		config := ""
		for range 1 + r.IntN(5) {
			config += string("+-eE"[r.IntN(4)])
			for range r.IntN(4) {
				config += []string{"a", "b", "+a", "+b", "*"}[r.IntN(5)]
			}
			config += []string{"", "z"}[r.IntN(2)] + "\n"
		}
		configs = append(configs, config)
	}
	for _, config := range configs {
		for _, flags := range [][]string{nil, {"-r", "?"}, {"-R", "ab", "-r", "+"}} {
			if len(flags) > 0 && r.IntN(3) > 0 {
				continue
			}
			in := in
			if strings.Contains(config, long[1:]) {
				in, flags = long+"\n"+long+"b\n"+long[1:]+"\n", nil
			}
			var got [2]string
			for i := range got {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
					t.Fatal(err)
				}
				args := append(flags, dir)
				if i == 0 {
					cmd := exec.Command(svlogd, args...)
					cmd.Stdin = strings.NewReader(in)
					var errs bytes.Buffer
					cmd.Stderr = &errs
					if err := cmd.Run(); err != nil {
						t.Fatalf("%v: %s", err, errs.String())
					}
					got[i] = errs.String()
				} else {
					got[i] = logAll(t, in, args...)
				}
				got[i] += "current:\n" + contents(t, dir)
			}
			if got[0] != got[1] {
				t.Errorf("%.60q %q: svlogd %.300q, ours %.300q", config, flags, got[0], got[1])
			}
		}
	}
}

// A line that patterns cannot decide yet stays in the pipe, so that a kill does not
// lose it.
func TestHeldLine(t *testing.T) {
	dir := t.TempDir()
	p := newPipe(t)
	l := p.open("--", "-*", "+a*c", dir)
	step := func(want string) {
		t.Helper()
		for {
			if _, err := l.step(); err == syscall.EAGAIN {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if got := contents(t, dir); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	p.print("a1c\nbc\na2")
	step("a1c\n")
	for range 20 {
		step("a1c\n")
	}
	if n := l.available(); n != 2 || l.holdFor != time.Second {
		t.Errorf("%d bytes stay for %v", n, l.holdFor)
	}
	l.holdFor = 20 * time.Millisecond
	begin := time.Now()
	if err := l.wait(); err != nil || time.Since(begin) < l.holdFor {
		t.Errorf("it is looked at again after %v, %v", time.Since(begin), err)
	}
	p.print("c\nb")
	step("a1c\na2c\n")
	if l.holdFor != time.Millisecond {
		t.Errorf("another line is held for %v", l.holdFor)
	}
	if err := takeAll(l.in, make([]byte, 1)); err != nil { // as another reader
		t.Fatal(err)
	}
	step("a1c\na2c\n")
	if l.held != 0 {
		t.Errorf("%d bytes are held of an empty pipe", l.held)
	}
	p.print("b")
	step("a1c\na2c\n")
	// SIGTERM leaves it to the next logger.
	l.signals = make(chan os.Signal, 1)
	l.signals <- syscall.SIGTERM
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	p.print("c\nac")
	l = p.open("--", "-*", "+b*", "+a*c", dir)
	step("a1c\na2c\nbc\n")
	// It is decided when the last writer ends, and written before it is taken.
	p.w.Close()
	if err := l.wait(); err != nil {
		t.Fatal(err)
	}
	if n, err := l.step(); n != 2 || err != nil || contents(t, dir) != "a1c\na2c\nbc\nac" {
		t.Errorf("%d, %v, %q", n, err, contents(t, dir))
	}
	if err := l.run(); err != nil || contents(t, dir) != "a1c\na2c\nbc\nac\n" {
		t.Errorf("%v, %q", err, contents(t, dir))
	}
}

// The rest of a line that is decided is written at once.
func TestContinuedLine(t *testing.T) {
	dir := t.TempDir()
	p := newPipe(t)
	l := p.open("+a*", dir)
	defer l.close()
	long := strings.Repeat("a", 1000)
	for _, part := range []string{long, "b", "c"} {
		p.print("%s", part)
		if n, err := l.step(); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if got := contents(t, dir); got != long+"bc" {
		t.Errorf("%q", got)
	}
}

// A line at the end of a file, in which nothing can be left, is decided as it is.
func TestLineAtEnd(t *testing.T) {
	in := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(in, []byte("a\nb\na"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, eof := range []bool{true, false} {
		f, err := os.Open(in)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		o, err := parse([]string{"--", "-*", "+a", dir})
		if err != nil {
			t.Fatal(err)
		}
		l := newLogger(o, int(f.Fd()))
		if err := l.open(t.Logf); err != nil {
			t.Fatal(err)
		}
		if _, err := l.step(); err != nil || contents(t, dir) != "a\n" {
			t.Errorf("%v, %q", err, contents(t, dir))
		}
		want := "a\na"
		if eof {
			want += "\n"
			if err := l.run(); err != nil {
				t.Error(err)
			}
		} else {
			l.close()
		}
		if got := contents(t, dir); got != want {
			t.Errorf("end of file: %t: %q", eof, got)
		}
		f.Close()
	}
}

// SIGHUP reads the file config again, at any moment in a line.
func TestConfigAgain(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	p := newPipe(t)
	l := p.open("-s", "100", dir)
	defer l.close()
	l.dirs[0].restarted = true // which has no effect after the first bytes
	var messages []string
	l.dirs[0].report = func(format string, args ...any) { messages = append(messages, fmt.Sprintf(format, args...)) }
	l.signals = make(chan os.Signal, 1)
	var want, mode string
	turn := func(configuration, in, out, spliced string) {
		t.Helper()
		if configuration == "none" {
			os.Remove(config)
		} else if err := os.WriteFile(config, []byte(configuration), 0o600); err != nil {
			t.Fatal(err)
		}
		l.signals <- syscall.SIGHUP
		l.handleSignals()
		p.print("%s", in)
		for {
			if _, err := l.step(); err == syscall.EAGAIN {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if mode = "tee"; reflect.ValueOf(l.step).Pointer() == reflect.ValueOf(l.splice).Pointer() {
			mode = "splice"
		}
		if want += out; contents(t, dir) != want || mode != spliced {
			t.Errorf("%q: %q by %s, want %q by %s", configuration, contents(t, dir), mode, want, spliced)
		}
	}
	turn("none", "a\nb", "a\nb", "splice")
	turn("-*\n", "c\nd\n", "c\n", "tee")
	turn("pp:", "e\nf", "p:e\np:f", "tee")
	turn("none", "g", "g", "tee")
	turn("none", "\nh\n", "\nh\n", "splice")
	long := strings.Repeat("x", 1000)
	turn("-x*\n", long, "", "tee")
	turn("none", "y\nz\n", "z\n", "splice")
	if len(messages) != 0 {
		t.Errorf("%q", messages)
	}
	turn("s60\nn1\nq\n", "aaa\n", "aaa\n", "splice")
	if d := l.dirs[0]; d.maxSize != 60 || d.maxFiles != 1 || len(messages) != 1 || messages[0] != config+`, line 3, "q": it is unknown` {
		t.Errorf("%+v, %q", d.settings, messages)
	}
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(config, 0o700); err != nil {
		t.Fatal(err)
	}
	l.signals <- syscall.SIGHUP
	l.handleSignals()
	if d := l.dirs[0]; d.maxSize != 100 || len(messages) != 2 || !strings.Contains(messages[1], config+" is not a file of up to 1 MiB") {
		t.Errorf("%+v, %q", d.settings, messages)
	}
}
