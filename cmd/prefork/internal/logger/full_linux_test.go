package logger

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// A file that cannot grow holds the writer, and no byte is lost.
func TestFullFile(t *testing.T) {
	for _, flags := range []string{"-s 0", "-s 30000", "-s 0 -p p"} {
		t.Run(flags, func(t *testing.T) {
			dir := t.TempDir()
			p := newPipe(t)
			l := p.start("limited", append(strings.Fields(flags), dir)...)
			var all strings.Builder
			for i := range 20_000 {
				fmt.Fprintln(&all, i, "of a file")
			}
			written := make(chan struct{})
			go func() {
				defer close(written)
				p.w.WriteString(all.String())
				p.w.Close()
			}()
			l.Expect("cannot write, and tries again: file too large$")
			select {
			case <-written:
				t.Fatal("the writer did not wait")
			default:
			}
			if err := unix.Prlimit(l.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}, nil); err != nil {
				t.Fatal(err)
			}
			l.Expect("writes again$")
			<-written
			expectStatus(t, l, 0)
			want := all.String()
			if strings.Contains(flags, "-p") {
				want = regexp.MustCompile("(?m)^.").ReplaceAllString(want, "p$0")
			}
			if got := contents(t, dir); got != want {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
		})
	}
}

func init() { preforktest.Register("full", full) }

// A full disk holds the writer until there is space, or old files are removed.
func TestFullDisk(t *testing.T) {
	preforktest.NeedRoot(t)
	p := preforktest.New(t, "full", t.TempDir())
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	p.Start()
	for line := p.NextLine(); line != "done"; line = p.NextLine() {
		t.Error(line)
	}
	p.Wait()
}

// full logs to a small file system of its own, and reports each thing that is
// wrong.
func full() {
	dir := os.Args[1]
	defer fmt.Println("done")
	if err := unix.Mount("prefork-test", dir, "tmpfs", 0, "size=256k,mode=755"); err != nil {
		fmt.Println("mount:", err)
		return
	}
	fill := filepath.Join(dir, "fill")
	for _, row := range []struct {
		flags string
		fill  int
	}{
		{"-s 0 -n 0", 100 << 10},
		{"-s 50000 -n 0", 100 << 10},
		{"-s 50000 -n 0 -l 90", 100 << 10},
		{"-s 50000 -n 0 -z", 220 << 10},
		{"-s 50000 -n 0 -N 2", 0},
		{"-s 50000 -n 0 -N 2 -l 90", 0},
	} {
		if err := fullRow(filepath.Join(dir, "log"), fill, row.flags, row.fill); err != nil {
			fmt.Println(row.flags, err)
		}
	}
	if err := fullWorker(filepath.Join(dir, "log"), fill); err != nil {
		fmt.Println("compression:", err)
	}
}

// fullWorker compresses a file for which there is no space at first.
func fullWorker(dir, fill string) error {
	text := make([]byte, 50<<10)
	for i := range text {
		text[i] = byte(rand.Int())
	}
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, nextName("", time.Now())+".u"), text, 0o644)
	}
	if err == nil {
		err = os.WriteFile(fill, make([]byte, 180<<10), 0o600)
	}
	if err != nil {
		return err
	}
	messages := make(chan string, 10)
	w := newWorker(dir, func(format string, args ...any) { messages <- fmt.Sprintf(format, args...) })
	w.look(processor{gzip: true})
	if m := <-messages; !strings.Contains(m, "no space left") || suffixes(dir) != ".u" {
		err = fmt.Errorf("%s, %s", m, suffixes(dir))
	}
	os.Remove(fill)
	w.look(processor{gzip: true})
	w.end()
	<-w.done
	if err != nil {
		return err
	}
	if s := suffixes(dir); s != ".s.gz" {
		return fmt.Errorf("%s", s)
	}
	if got, err := readLog(filepath.Join(dir, rotated(dir)[0])); err != nil || !bytes.Equal(got, text) {
		return fmt.Errorf("%d bytes, %v", len(got), err)
	}
	return nil
}

func fullRow(dir, fill, flags string, filled int) error {
	defer os.RemoveAll(dir)
	defer os.Remove(fill)
	if filled > 0 {
		if err := os.WriteFile(fill, make([]byte, filled), 0o600); err != nil {
			return err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	o, err := parse(append(strings.Fields(flags), dir))
	if err != nil {
		return err
	}
	var messages []string
	l := newLogger(o, int(r.Fd()))
	var mu sync.Mutex
	err = l.open(func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		messages = append(messages, fmt.Sprintf(format, args...))
		os.Remove(fill)
	})
	if err != nil {
		return err
	}
	var all bytes.Buffer
	size := 200_000
	if filled == 0 {
		size = 600_000
	}
	for i := 0; all.Len() < size; i++ {
		fmt.Fprintf(&all, "%d %s\n", i, strings.Repeat("x", i%70))
	}
	written := make(chan error, 1)
	go func() {
		_, err := w.Write(all.Bytes())
		w.Close()
		written <- err
	}()
	if err := l.run(); err != nil {
		return err
	}
	if err := <-written; err != nil {
		return err
	}
	var got bytes.Buffer
	names := files(dir)
	for _, name := range names {
		content, err := readLog(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		got.Write(content)
	}
	switch text := strings.Join(messages, "; "); {
	case !strings.Contains(text, "no space left"):
		return fmt.Errorf("messages: %q", messages)
	case filled > 0 && got.String() != all.String():
		return fmt.Errorf("%d bytes of %d", got.Len(), all.Len())
	case filled == 0 && (!bytes.HasSuffix(all.Bytes(), got.Bytes()) || len(names) < 3):
		return fmt.Errorf("%d files have %d bytes, and not the last of the input", len(names), got.Len())
	}
	return nil
}
