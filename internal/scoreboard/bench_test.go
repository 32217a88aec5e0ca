//go:build unix

package scoreboard

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func BenchmarkSet(b *testing.B) {
	_, w := pair(b, noRing)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.Set("R_"[i&1])
	}
}

func BenchmarkServed(b *testing.B) {
	_, w := pair(b, noRing)
	b.ReportAllocs()
	for b.Loop() {
		w.Served(1)
	}
}

func BenchmarkBeat(b *testing.B) {
	_, w := pair(b, noRing)
	b.ReportAllocs()
	for b.Loop() {
		w.Beat()
	}
}

// BenchmarkFile is how Parallel::Scoreboard publishes a status: a write to a file, under a lock. "write" is without the
// lock.
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

// BenchmarkNew is what a spawn pays: the file, the cell, and letting go of both.
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

// BenchmarkPost is what the manager pays for a ring: one worker has become busy, all are looked at.
func BenchmarkPost(b *testing.B) {
	for _, n := range []int{10, 300, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var cells []*Cell
			var writers []*Writer
			for range n {
				c, w := pair(b, func() {})
				cells, writers = append(cells, c), append(writers, w)
			}
			var bell Bell
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				writers[i/2%n].Set("R_"[i&1])
				bell.Post(cells, 5, n)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	c, _ := pair(b, noRing)
	b.ReportAllocs()
	for b.Loop() {
		c.Read()
	}
}
