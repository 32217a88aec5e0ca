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
)

// roomy says that it is up, and on each line that it reads ends a thread of its own.
var roomyProgram = program("roomy", func([]string) {
	fmt.Println("up")
	for buf := make([]byte, 1); ; {
		if _, err := os.Stdin.Read(buf); err != nil {
			return
		}
		done := make(chan bool)
		go func() {
			runtime.LockOSThread() // and never unlocked, so that the thread ends with the goroutine
			close(done)
		}()
		<-done
		fmt.Println("done")
	}
})

func needThreadPidfd(t testing.TB) {
	t.Helper()
	if fd, err := unix.PidfdOpen(os.Getpid(), unix.PIDFD_THREAD); err != nil {
		t.Skipf("this kernel has no pidfds of threads (Linux 6.9): %v", err)
	} else {
		unix.Close(fd)
	}
}

// A process that was killed, and one that exits, are foretold, and reaped as ever; one that loses a thread is not.
func TestForetell(t *testing.T) {
	needThreadPidfd(t)
	o, seen := newOwner(t, "pidfd"), 0
	for range 20 {
		c := o.start(roomyProgram, nil)
		c.expect("up")
		c.Foretell()
		c.in.Write([]byte("x"))
		c.expect("done")
		if c.Ending() {
			t.Fatal("a process that lost a thread is taken for one that ends")
		}
		c.Foretell()
		if err := c.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		o.await(Note{c.id, Ending})
		if c.Ending() {
			seen++
		}
		if status := c.reap(); status.Signal != syscall.SIGKILL {
			t.Errorf("status %v", status)
		}
	}
	// There is a moment in which the kernel shows nothing, but it is short.
	if seen < 10 {
		t.Errorf("%d of 20 ends were seen", seen)
	}
	before := len(openFiles())
	c := o.start(roomyProgram, nil)
	c.expect("up")
	c.Foretell()
	c.in.Close()
	o.await(Note{c.id, Ending})
	if status := c.reap(); !status.Clean() {
		t.Errorf("status %v", status)
	}
	c.out.Close()
	if after := len(openFiles()); after > before {
		t.Errorf("%d files were open before, %d after", before, after)
	}
}

// What Ending reads of the kernel's file, and that it does not stumble over names.
func TestEndingStat(t *testing.T) {
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
		if got := endingStat([]byte(tt.stat)); got != tt.want {
			t.Errorf("%q: %v", tt.stat, got)
		}
	}
	// And the real one, of a process in whose life nothing of that is so.
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil || endingStat(stat) {
		t.Errorf("this process ends: %s, %v", stat, err)
	}
	// A zombie has exited for certain.
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
	if err != nil || !endingStat(stat) {
		t.Errorf("a zombie does not end: %s, %v", stat, err)
	}
}

// BenchmarkForetell measures the time from SIGKILL to the first note that foretells the end, and to that of the end itself.
func BenchmarkForetell(b *testing.B) {
	needThreadPidfd(b)
	o := newOwner(b, "pidfd")
	var ending, exited time.Duration
	for b.Loop() {
		b.StopTimer()
		c := o.start(roomyProgram, nil)
		c.expect("up")
		c.Foretell()
		b.StartTimer()
		began := time.Now()
		c.Signal(syscall.SIGKILL)
		o.await(Note{c.id, Ending})
		ending += time.Since(began)
		o.await(Note{c.id, Exited})
		exited += time.Since(began)
		b.StopTimer()
		c.Reap()
		c.in.Close()
		c.out.Close()
		b.StartTimer()
	}
	b.ReportMetric(float64(ending.Microseconds())/float64(b.N), "µs-ending")
	b.ReportMetric(float64(exited.Microseconds())/float64(b.N), "µs-exited")
}
