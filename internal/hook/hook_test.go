package hook

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// text is a log that can be read while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newRunner returns a Runner and its log.
func newRunner() (*Runner, *text) {
	log := new(text)
	return NewRunner(slog.New(slog.NewTextHandler(log, nil))), log
}

// The log names a hook that blocks, once; and none of the hooks that are quick, however
// many they are.
func TestBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newRunner()
		for range 100 {
			r.Run("quick", func() { time.Sleep(patience / 10) })
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if log.String() != "" {
			t.Error(log)
		}
		r.Run("quick", func() { time.Sleep(time.Second) })
		r.Run("slow", func() {
			if call := r.Current(); call == nil || call.Name != "slow" || !call.Since.Equal(time.Now()) {
				t.Errorf("%+v", call)
			}
			time.Sleep(patience - 1)
			synctest.Wait()
			if log.String() != "" {
				t.Error(log)
			}
			time.Sleep(10 * patience)
		})
		synctest.Wait()
		if got := log.String(); strings.Count(got, "hook blocks the manager") != 1 || !strings.Contains(got, "hook=slow for=5s") || r.Current() != nil {
			t.Errorf("%s, %+v", got, r.Current())
		}
	})
}

// A panic of a hook is the caller's, and no hook runs after it.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRunner()
		defer func() {
			if v := recover(); v != "bad" || r.Current() != nil {
				t.Errorf("%v, %+v", v, r.Current())
			}
		}()
		r.Run("panics", func() { panic("bad") })
	})
}

// Only the second interrupt ends the process, and only if the hook that ran then still
// runs a second later.
func TestInterrupt(t *testing.T) {
	for name, tt := range map[string]struct {
		use  func(*Runner)
		want int // exit code
	}{
		"one": {func(r *Runner) { r.Run("x", func() { r.Interrupt(); time.Sleep(time.Minute) }) }, 0},
		"two": {func(r *Runner) { r.Run("x", func() { r.Interrupt(); r.Interrupt(); time.Sleep(time.Minute) }) }, 130},
		"returns in time": {func(r *Runner) {
			r.Run("x", func() { r.Interrupt(); r.Interrupt(); time.Sleep(interruptGrace - 1) })
			r.Run("x", func() { time.Sleep(time.Minute) })
		}, 0},
		"no hook":                 {func(r *Runner) { r.Interrupt(); r.Interrupt(); r.Run("x", func() { time.Sleep(time.Minute) }) }, 0},
		"one, then one in a hook": {func(r *Runner) { r.Interrupt(); r.Run("x", func() { r.Interrupt(); time.Sleep(time.Minute) }) }, 130},
		"none runs at all":        {func(r *Runner) { r.Interrupt(); r.Interrupt() }, 0},
		"another generation": {func(r *Runner) {
			r.Interrupt()
			r.Begin()
			r.Run("x", func() { r.Interrupt(); time.Sleep(time.Minute) })
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				code := 0
				exit = func(n int) { code = n }
				r, _ := newRunner()
				tt.use(r)
				time.Sleep(time.Minute)
				synctest.Wait()
				if code != tt.want {
					t.Errorf("exit code %d, want %d", code, tt.want)
				}
			})
		})
	}
}

func TestGuard(t *testing.T) {
	var g Guard
	if g.Current() != nil {
		t.Error("a call is under way before the first")
	}
	for range 2 {
		if other := g.Enter("Run"); other != nil {
			t.Errorf("%+v", other)
		}
		if other := g.Enter("Start"); other == nil || other.Name != "Run" || g.Current() != other || time.Since(other.Since) < 0 {
			t.Errorf("%+v, %+v", other, g.Current())
		}
		if g.Leave(); g.Current() != nil {
			t.Errorf("%+v", g.Current())
		}
	}
}
