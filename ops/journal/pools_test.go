//go:build unix

package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefork-go/prefork"
)

// One journal has the records of several Managers. The state that is read back
// gives the service of each process, also after a rotation.
func TestPools(t *testing.T) {
	path := filepath.Join(t.TempDir(), "watch.journal")
	j := openJournal(t, path, Config{})
	var text bytes.Buffer
	sink := MultiSink(j, NewTextSink("text", &text))
	web, log := PoolObserver(sink, "web", nil), PoolObserver(sink, "web/log", nil)
	worker := func(pid int, paused bool) prefork.WorkerInfo {
		return prefork.WorkerInfo{PID: pid, State: prefork.StateReady, Paused: paused}
	}
	writeEvents(t, sink, ProgramAdded{Service: "web", Kind: "service"})
	log(prefork.StateEvent{Worker: worker(12, false)})
	web(prefork.StateEvent{Worker: worker(11, false)})
	web(prefork.StateEvent{Worker: worker(13, false)})
	web(prefork.PausedEvent{Worker: worker(11, true)})
	log(prefork.PausedEvent{Worker: worker(12, true)})
	log(prefork.ResumeEvent{}) // not of the other pool
	web(prefork.ExitEvent{Exit: prefork.Exit{PID: 13}})
	check := func(when string) {
		t.Helper()
		s, err := PreviousState(path)
		if err != nil || s.PID != os.Getpid() {
			t.Fatalf("%s: %v, %v", when, s, err)
		}
		want := []Worker{{Pool: "web", WorkerInfo: worker(11, true)}, {Pool: "web/log", WorkerInfo: worker(12, false)}}
		if len(s.Workers) != 2 || s.Workers[0] != want[0] || s.Workers[1] != want[1] {
			t.Errorf("%s: workers %+v, want %+v", when, s.Workers, want)
		}
	}
	check("at first")
	if err := j.Rotate(); err != nil {
		t.Fatal(err)
	}
	writeEvents(t, j, ProgramChanged{Service: "web"})
	check("after a rotation")
	if !strings.Contains(text.String(), " web: ") || !strings.Contains(text.String(), " web/log: ") {
		t.Errorf("the text has no names of pools:\n%s", &text)
	}
}
