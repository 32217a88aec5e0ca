package main

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/ops/supervise"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("talker", talker) }

// talker writes numbered lines as fast as it can, as finish a limited number.
// Before each it stores the number of the last one in memory that a file keeps.
func talker() {
	pid, limit := os.Getpid(), 0
	if len(os.Args) > 1 {
		limit = 10_000
	}
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
	for n := 1; limit == 0 || n <= limit; n++ {
		line = append(strconv.AppendInt(append(strconv.AppendInt(line[:0], int64(pid), 10), ' '), int64(n), 10), '\n')
		if _, err := syscall.Write(1, line); err != nil {
			panic(err)
		}
		binary.LittleEndian.PutUint64(written, uint64(n))
	}
}

// The pipe to prefork log loses, doubles and tears no line, whatever is killed,
// whenever: the service, finish or the logger.
func TestLogOfWhatIsKilled(t *testing.T) {
	least, atLeast := 6, time.Duration(0)
	if testprog.Long() {
		atLeast = time.Minute
	}
	w := newWatched(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	web := filepath.Join(w.dir, "web")
	files := map[string]string{
		"log/run": "#!/bin/sh\nexec " + self + " log -s 5000000 -n 0 -z main",
		"run":     "#!/bin/sh\nexec " + self,
		"finish":  "#!/bin/sh\nexec " + self + ` "$@"`,
		"backoff": "0", "log/backoff": "0",
	}
	for dir, program := range map[string]string{"env/": "talker", "log/env/": "prefork"} {
		for _, kv := range preforktest.Environ(t, program) {
			if name, value, _ := strings.Cut(kv, "="); os.Getenv(name) != value {
				files[dir+name] = value
			}
		}
	}
	for name, text := range files {
		path := filepath.Join(web, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	current := filepath.Join(web, "log/main/current")
	size := func() (s int64) {
		if info, err := os.Stat(current); err == nil {
			s = info.Size()
		}
		return s
	}
	kills := map[string]int{}
	begin := time.Now()
	for i := 0; i < least || time.Since(begin) < atLeast; i++ {
		last := size()
		preforktest.WaitFor(t, "more lines", func() bool { return size() != last })
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		switch i % 3 {
		case 0:
			kills["log"] += kill(web+"/log", supervise.Run)
		case 1:
			kills["run"] += kill(web, supervise.Run)
		case 2: // of run, and of the finish that follows
			kills["run"] += kill(web, supervise.Run)
			killed := 0
			for range 1000 {
				if killed = kill(web, supervise.Finish); killed > 0 {
					break
				}
				time.Sleep(time.Millisecond / 4)
			}
			kills["finish"] += killed
		}
	}
	w.stop(syscall.SIGTERM, 0)

	counts := countLines(t, filepath.Dir(current))
	lives, err := filepath.Glob(filepath.Join(web, "last.*"))
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, path := range lives {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		written := 0
		if len(b) > 0 { // it was killed before it wrote
			written = int(binary.LittleEndian.Uint64(b))
		}
		pid := strings.TrimPrefix(filepath.Base(path), "last.")
		if n := counts[pid]; n != written && n != written+1 {
			t.Errorf("process %s has written %d lines, and the log has %d", pid, written, n)
		}
		lines += counts[pid]
		delete(counts, pid)
	}
	if len(counts) > 0 || kills["log"] == 0 || kills["run"] == 0 || kills["finish"] == 0 {
		t.Errorf("killed: %v; the log has lines of unknown processes: %v", kills, counts)
	}
	t.Logf("%d lines of %d processes in %v; killed: %v", lines, len(lives), time.Since(begin).Round(time.Millisecond), kills)
}

// kill kills the process of a service in a state, and returns how many it has
// killed. The process is one of this service, also if its number was used again.
func kill(dir string, state supervise.State) int {
	var st supervise.Status
	b, err := os.ReadFile(filepath.Join(dir, "supervise/status"))
	if err != nil || st.UnmarshalBinary(b) != nil || st.State != state {
		return 0
	}
	fd, err := unix.PidfdOpen(st.PID, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	at, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", st.PID))
	if err != nil {
		return 0
	}
	if want, err := os.Stat(dir); err != nil || !os.SameFile(at, want) {
		return 0
	}
	if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) != nil {
		return 0
	}
	return 1
}

// countLines returns how many lines of each process a log has. None may be missing
// between others, doubled or torn.
func countLines(t *testing.T, dir string) map[string]int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "@*")) // before current
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int)
	for _, name := range append(names, filepath.Join(dir, "current")) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = f
		if filepath.Ext(name) == ".gz" {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		in := bufio.NewScanner(r)
		for in.Scan() {
			pid, number, _ := strings.Cut(in.Text(), " ")
			counts[pid]++
			if number != strconv.Itoa(counts[pid]) {
				t.Fatalf("line %q in %s, in place of number %d", in.Text(), filepath.Base(name), counts[pid])
			}
		}
		if err := in.Err(); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return counts
}
