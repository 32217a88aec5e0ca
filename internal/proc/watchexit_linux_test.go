package proc

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("threads", threadsProgram) }

// threadsProgram prints "up" and ends one of its threads for each byte
// that it reads.
func threadsProgram() {
	fmt.Println("up")
	for buf := make([]byte, 1); ; {
		if _, err := os.Stdin.Read(buf); err != nil {
			return
		}
		done := make(chan bool)
		go func() {
			runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
			close(done)
		}()
		<-done
		fmt.Println("done")
	}
}

func needThreadPidfd(t testing.TB) {
	t.Helper()
	if fd, err := unix.PidfdOpen(os.Getpid(), unix.PIDFD_THREAD); err != nil {
		t.Skipf("this kernel has no pidfds of threads (Linux 6.9): %v", err)
	} else {
		unix.Close(fd)
	}
}

// Exiting reports a process that was killed or exits, but not one that loses a
// thread.
func TestWatchExit(t *testing.T) {
	needThreadPidfd(t)
	o, reported := newOwner(t, "pidfd"), 0
	for range 20 {
		c := o.start("threads", nil)
		c.expect("up")
		c.WatchExit()
		c.in.Write([]byte("x"))
		c.expect("done")
		if c.Exiting() {
			t.Fatal("a process that lost a thread counts as exiting")
		}
		c.UnwatchExit()
		c.WatchExit()
		if err := c.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		o.await(Note{c.id, Exiting})
		if c.Exiting() {
			reported++
		}
		if status := c.reap(); status.Signal != syscall.SIGKILL {
			t.Errorf("status %v", status)
		}
	}
	// For a short moment the kernel shows no exit.
	if reported < 10 {
		t.Errorf("%d of 20 exits were reported", reported)
	}
	before := len(openFiles())
	c := o.start("threads", nil)
	c.expect("up")
	c.WatchExit()
	c.in.Close()
	o.await(Note{c.id, Exiting})
	if status := c.reap(); !status.Clean() {
		t.Errorf("status %v", status)
	}
	c.out.Close()
	if after := len(openFiles()); after > before {
		t.Errorf("%d files were open before, %d after", before, after)
	}
}

// exitingStat must parse the file for any name of the program.
func TestExitingStat(t *testing.T) {
	pad := " 1 1 1 0 -1 %d 1 0 1 0 1 1 0 0 20 0 1 0 1 1 1 1 1 1 1 1 1 %d 0 0 0"
	for _, tt := range []struct {
		stat string
		want bool
	}{
		{"", false},
		{"12 (a) R 1", false},
		{"12 (a) S" + fmt.Sprintf(pad, 0x400040, 0), false},
		{"12 (a) R" + fmt.Sprintf(pad, 0x400044, 0), true},
		{"12 (a) S" + fmt.Sprintf(pad, 0x400040, 1<<8), true},
		{"12 (a) S" + fmt.Sprintf(pad, 0x400040, 1<<14), false},
		{"12 (a) 4 ) b) S" + fmt.Sprintf(pad, 4, 0), true},
		{"12 (a ( S 4) S" + fmt.Sprintf(pad, 0, 0), false},
	} {
		if got := exitingStat([]byte(tt.stat)); got != tt.want {
			t.Errorf("%q: %v", tt.stat, got)
		}
	}
	// The file of a live process.
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil || exitingStat(stat) {
		t.Errorf("this process counts as exiting: %s, %v", stat, err)
	}
	// The file of a zombie.
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	stat, err = os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
	if err != nil || !exitingStat(stat) {
		t.Errorf("a zombie does not count as exiting: %s, %v", stat, err)
	}
}

// BenchmarkWatchExit measures the time from SIGKILL to the first Exiting note
// and to the Exited note.
func BenchmarkWatchExit(b *testing.B) {
	needThreadPidfd(b)
	o := newOwner(b, "pidfd")
	var exiting, exited time.Duration
	for b.Loop() {
		b.StopTimer()
		c := o.start("threads", nil)
		c.expect("up")
		c.WatchExit()
		b.StartTimer()
		began := time.Now()
		c.Signal(syscall.SIGKILL)
		o.await(Note{c.id, Exiting})
		exiting += time.Since(began)
		o.await(Note{c.id, Exited})
		exited += time.Since(began)
		b.StopTimer()
		c.Reap()
		c.in.Close()
		c.out.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(exiting.Microseconds())/float64(b.N), "µs-exiting")
	b.ReportMetric(float64(exited.Microseconds())/float64(b.N), "µs-exited")
}
