//go:build unix

package scoreboard

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func BenchmarkSet(b *testing.B) {
	_, w := pair(b, noNotify)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.Set("R_"[i&1])
	}
}

func BenchmarkServed(b *testing.B) {
	_, w := pair(b, noNotify)
	b.ReportAllocs()
	for b.Loop() {
		w.Served(1)
	}
}

func BenchmarkHeartbeat(b *testing.B) {
	_, w := pair(b, noNotify)
	b.ReportAllocs()
	for b.Loop() {
		w.Heartbeat()
	}
}

// BenchmarkFile measures how Parallel::Scoreboard publishes a status: by a
// write to a file under a lock. The case "write" omits the lock.
func BenchmarkFile(b *testing.B) {
	f, err := os.CreateTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	write := func(b *testing.B, i int) {
		if _, err := unix.Pwrite(fd, []byte{"R_"[i&1]}, 100); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			write(b, i)
		}
	})
	b.Run("locked", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
				b.Fatal(err)
			}
			write(b, i)
			if err := unix.Flock(fd, unix.LOCK_UN); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkNew measures the cost of a spawn: make and close the file and the
// cell.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		fd := newFile(b)
		c, err := New(fd)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
		c.Close()
	}
}

// BenchmarkArm measures the manager's cost of a notification: one worker has
// become busy, and Arm reads all cells.
func BenchmarkArm(b *testing.B) {
	for _, n := range []int{10, 300, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var cells []*Cell
			var writers []*Writer
			for range n {
				c, w := pair(b, func() {})
				cells, writers = append(cells, c), append(writers, w)
			}
			var notifier Notifier
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				writers[i/2%n].Set("R_"[i&1])
				notifier.Arm(cells, 5, n)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	c, _ := pair(b, noNotify)
	b.ReportAllocs()
	for b.Loop() {
		c.Read()
	}
}
