//go:build unix

package service

import (
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// A loop touches the pid file at most ten times a second, since each touch
// notifies every process that watches the directory.
func TestTouchInterval(t *testing.T) {
	s, err := New("test", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, _ := s.resolved()
	lock, err := s.acquireLock(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.release()
	synctest.Test(t, func(t *testing.T) {
		l := &Loop{s: s, lock: lock, ctx: t.Context()} // nothing watches the files
		past := time.Unix(1_000_000_000, 0)
		for _, c := range []struct {
			after   time.Duration
			touches bool
		}{{0, true}, {0, false}, {100*time.Millisecond - 1, false}, {1, true}, {99 * time.Millisecond, false}, {time.Hour, true}} {
			time.Sleep(c.after)
			if err := os.Chtimes(s.PIDFile, past, past); err != nil {
				t.Fatal(err)
			}
			if !l.Next() {
				t.Fatal("the loop ends")
			}
			if info, err := os.Stat(s.PIDFile); err != nil || info.ModTime().Equal(past) == c.touches {
				t.Errorf("%v later: touches the file %t, want %t: %v", c.after, !c.touches, c.touches, err)
			}
		}
	})
}
