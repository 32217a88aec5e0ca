package monitor

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/monitor/internal/scan"
	"github.com/prefork-go/prefork/ops/supervise"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("talker", talker)
	preforktest.Register("splicer", splicer)
}

// talker writes numbered lines as fast as it can. Before each it stores the number
// of the last one in memory that a file keeps.
func talker() {
	pid := os.Getpid()
	f, err := os.Create(fmt.Sprint("last.", pid))
	if err != nil {
		panic(err)
	}
	f.Truncate(8)
	written, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	var line []byte
	for n := 1; ; n++ {
		line = append(strconv.AppendInt(append(strconv.AppendInt(line[:0], int64(pid), 10), ' '), int64(n), 10), '\n')
		if _, err := syscall.Write(1, line); err != nil {
			panic(err)
		}
		binary.LittleEndian.PutUint64(written, uint64(n))
	}
}

// splicer moves its input to a file, so that what it has taken is written whenever it
// is killed.
func splicer() {
	f, err := os.OpenFile("out", os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	f.Seek(0, 2)
	for {
		n, err := unix.Splice(0, nil, int(f.Fd()), nil, 1<<20, unix.SPLICE_F_MOVE)
		if n == 0 && err == nil {
			return
		}
		if err != nil && err != unix.EINTR {
			panic(err)
		}
	}
}

// The pipe to the logger loses nothing, whatever is killed, whenever: the service
// or the logger.
func TestLogOfWhatIsKilled(t *testing.T) {
	kills := 12
	if testprog.Long() {
		kills = 400
	}
	r := newRig(t, Config{})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.service("web", "run: exec "+self, "finish: echo finish $4; sleep 0.01; echo end $4", "backoff: 0", "log/run: exec "+self, "log/backoff: 0")
	for dir, program := range map[string]string{"web/env": "talker", "web/log/env": "splicer"} {
		for _, kv := range preforktest.Environ(t, program) {
			if name, value, _ := strings.Cut(kv, "="); os.Getenv(name) != value {
				r.file(filepath.Join(dir, name), value)
			}
		}
	}
	r.start()
	out := filepath.Join(r.dir, "web", "log", "out")
	size := func() int64 {
		info, err := os.Stat(out)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for range kills {
		last := size()
		preforktest.WaitFor(t, "more lines", func() bool { return size() > last })
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		if st := r.status([]string{"web", "web/log"}[rand.IntN(2)]); st.State == supervise.Run {
			syscall.Kill(st.PID, syscall.SIGKILL)
		}
	}
	r.change(scan.Removed, "web")
	preforktest.WaitFor(t, "end", func() bool { return len(r.m.Services()) == 0 })
	lives, lines := checkLog(t, out)
	ends, _ := filepath.Glob(filepath.Join(r.dir, "web", "last.*"))
	t.Logf("%d lines of %d runs, %d kills", lines, len(ends), kills)
	for _, path := range ends {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		written := 0
		if len(b) > 0 { // it was killed before it wrote
			written = int(binary.LittleEndian.Uint64(b))
		}
		pid := strings.TrimPrefix(filepath.Base(path), "last.")
		if life := lives[pid]; life.lines != written && life.lines != written+1 || written > 0 && !life.finish {
			t.Errorf("run %s has written %d lines: %+v", pid, written, life)
		}
	}
}

type life struct {
	lines  int
	finish bool
}

// checkLog reads the lines of the log, in which nothing may be missing, doubled or
// torn.
func checkLog(t *testing.T, path string) (lives map[string]life, lines int) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lives = make(map[string]life)
	for in := bufio.NewScanner(f); in.Scan(); lines++ {
		words := strings.Fields(in.Text())
		if len(words) != 2 {
			t.Fatalf("torn line %q", in.Text())
		}
		pid := words[0]
		if slices.Contains([]string{"finish", "end"}, pid) {
			pid = words[1]
			l := lives[pid]
			l.finish = true
			lives[pid] = l
			continue
		}
		l := lives[pid]
		if l.lines++; words[1] != strconv.Itoa(l.lines) || l.finish {
			t.Fatalf("line %q after line %d of that run, finish: %t", in.Text(), l.lines-1, l.finish)
		}
		lives[pid] = l
	}
	return lives, lines
}
