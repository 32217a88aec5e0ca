package logfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/ops/capture"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("full", full) }

// If the disk is full, the worker waits. When there is place again, no line is
// missing, doubled or torn. Without inodes the file grows instead.
func TestFullDisk(t *testing.T) {
	preforktest.NeedRoot(t)
	for _, scenario := range []string{"blocks", "inodes"} {
		t.Run(scenario, func(t *testing.T) {
			p := preforktest.New(t, "full", t.TempDir(), scenario)
			p.Cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			p.Start()
			for line := p.Expect(`.*`)[0]; line != "done"; line = p.Expect(`.*`)[0] {
				t.Error(line)
			}
			p.Wait()
		})
	}
}

// full captures lines to a small file system of its own, and reports each thing
// that is wrong.
func full() {
	dir, scenario := os.Args[1], os.Args[2]
	defer fmt.Println("done")
	if err := unix.Mount("prefork-test", dir, "tmpfs", 0, "size=256k,nr_inodes=12,mode=755"); err != nil {
		fmt.Println("mount:", err)
		return
	}
	fill(dir, scenario)
	path := filepath.Join(dir, "a.log")
	f, err := Open(Config{Path: path, MaxSize: 30_000})
	if err != nil {
		fmt.Println("Open:", err)
		return
	}
	reports := make(chan error, 1000)
	c, err := capture.New(capture.Config{Sink: f, Report: func(err error) { reports <- err }})
	if err != nil {
		fmt.Println("New:", err)
		return
	}
	w, err := c.Open(0)
	if err != nil {
		fmt.Println("Open:", err)
		return
	}
	fd, err := syscall.Dup(int(w.Stdout.Fd()))
	if err != nil {
		fmt.Println("dup:", err)
		return
	}
	out := os.NewFile(uintptr(fd), "stdout")
	w.Started(1)
	var want strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&want, "%d %s\n", i, strings.Repeat("x", i%100))
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		out.WriteString(want.String())
		out.Close()
		w.Ended(nil)
	}()
	if err := <-reports; !errors.Is(err, syscall.ENOSPC) && !strings.Contains(fmt.Sprint(err), syscall.ENOSPC.Error()) {
		fmt.Println("reported:", err)
	}
	if scenario == "blocks" {
		select { // the worker waits, because the pipe cannot hold the rest
		case <-written:
			fmt.Println("the worker has ended although the disk is full")
		default:
		}
	} else {
		<-written // the file grows
	}
	files, err := filepath.Glob(filepath.Join(dir, "fill*"))
	if err != nil || len(files) == 0 {
		fmt.Println("nothing to remove:", err)
	}
	for _, name := range files {
		os.Remove(name)
	}
	<-written
	if scenario == "inodes" {
		for len(contents(dir)) < want.Len() {
			time.Sleep(time.Millisecond)
		}
		f.mu.Lock()
		f.tryAgain = time.Time{} // not only in a second
		f.mu.Unlock()
		if _, err := f.Write([]byte("last\n")); err != nil {
			fmt.Println("after the removal:", err)
		}
		want.WriteString("last\n")
	}
	if err := c.Close(context.Background()); err != nil {
		fmt.Println("Close:", err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "a-*.log")); len(names) == 0 {
		fmt.Println("the file was never rotated")
	}
	if got := contents(dir); got != want.String() {
		fmt.Printf("%d bytes arrived, want %d\n", len(got), want.Len())
	}
}

// contents returns the lines of all files in order.
func contents(dir string) string {
	names, _ := filepath.Glob(filepath.Join(dir, "a-*.log"))
	slices.SortFunc(names, compareNames)
	var all strings.Builder
	for i, name := range append(names, filepath.Join(dir, "a.log")) {
		content, err := os.ReadFile(name)
		if err != nil {
			fmt.Println(err)
		}
		if i < len(names) && !strings.HasSuffix(string(content), "\n") {
			fmt.Println(name, "ends within a line")
		}
		all.Write(content)
	}
	return all.String()
}

// fill leaves 60 KiB, or one inode, of the file system.
func fill(dir, scenario string) {
	switch scenario {
	case "blocks":
		os.WriteFile(filepath.Join(dir, "fill"), make([]byte, 196<<10), 0o600)
	case "inodes":
		for i := 0; ; i++ {
			name := filepath.Join(dir, fmt.Sprint("fill", i))
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				os.Remove(filepath.Join(dir, fmt.Sprint("fill", i-1)))
				return
			}
		}
	}
}
