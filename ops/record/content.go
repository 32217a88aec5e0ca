package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/sig"
)

// The structs in this file are the contents of the records. Their JSON keys
// must remain stable: they are part of the file format.

type managerData struct {
	PID       int  `json:"pid"`
	Successor bool `json:"successor,omitempty"`
}

type warningData struct {
	Component string `json:"component"`
	Error     string `json:"error"`
}

type rotatedData struct {
	Reason string `json:"reason"`
	stateData
}

type workersData struct {
	Workers []poolWorkerData `json:"workers,omitempty"`
}

type stateData struct {
	Started time.Time        `json:"started,omitzero"`
	PID     int              `json:"pid,omitempty"`
	Ended   time.Time        `json:"ended,omitzero"`
	Workers []poolWorkerData `json:"workers,omitempty"`
}

// poolWorkerData is a worker of a state. That of an event has the pool of its
// record.
type poolWorkerData struct {
	Pool string `json:"pool,omitempty"`
	workerData
}

func stateToData(s State) stateData {
	return stateData{Started: s.Started.UTC(), PID: s.PID, Ended: s.Ended.UTC(), Workers: workersToData(s.Workers)}
}

func (d stateData) state() State {
	return State{Started: d.Started, PID: d.PID, Ended: d.Ended, Workers: workersFromData(d.Workers)}
}

func workersToData(workers []Worker) (data []poolWorkerData) {
	for _, w := range workers {
		data = append(data, poolWorkerData{w.Pool, workerToData(w.WorkerInfo)})
	}
	return data
}

func workersFromData(data []poolWorkerData) (workers []Worker) {
	for _, d := range data {
		workers = append(workers, Worker{d.Pool, d.worker()})
	}
	return workers
}

type serviceData struct {
	Service string `json:"service"`
	Kind    string `json:"kind,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

type passedOverData struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"`
}

type generationData struct {
	Generation int    `json:"gen"`
	MaxWorkers int    `json:"max_workers"`
	Program    string `json:"program,omitempty"`
}

type workerData struct {
	Slot       int       `json:"slot"`
	Generation int       `json:"gen"`
	Ordinal    int       `json:"ordinal"`
	PID        int       `json:"pid"`
	State      stateName `json:"state"`
	Started    time.Time `json:"started,omitzero"`
	Paused     bool      `json:"paused,omitempty"`
	Status     string    `json:"status,omitempty"`
	Requests   uint64    `json:"requests,omitempty"`
}

func workerToData(w prefork.WorkerInfo) workerData {
	d := workerData{
		Slot: w.Slot, Generation: w.Generation, Ordinal: w.Ordinal, PID: w.PID,
		State: stateName(w.State), Started: w.Started.UTC(), Paused: w.Paused, Requests: w.Requests,
	}
	if w.Status != 0 {
		d.Status = string(rune(w.Status)) // any byte, as the rune of that number
	}
	return d
}

func (d workerData) worker() prefork.WorkerInfo {
	w := prefork.WorkerInfo{
		Slot: d.Slot, Generation: d.Generation, Ordinal: d.Ordinal, PID: d.PID,
		State: prefork.State(d.State), Started: d.Started, Paused: d.Paused, Requests: d.Requests,
	}
	for _, r := range d.Status {
		w.Status = byte(r)
		break
	}
	return w
}

type workerEventData struct {
	workerData
	From   stateName  `json:"from"`
	Reason reasonName `json:"reason,omitempty"`
}

func workerEventToData(e prefork.StateEvent) workerEventData {
	return workerEventData{workerToData(e.Worker), stateName(e.From), reasonName(e.Reason)}
}

func (d workerEventData) event() prefork.StateEvent {
	return prefork.StateEvent{Worker: d.worker(), From: prefork.State(d.From), Reason: prefork.Reason(d.Reason)}
}

type exitData struct {
	Slot       int        `json:"slot"`
	Generation int        `json:"gen"`
	Ordinal    int        `json:"ordinal"`
	PID        int        `json:"pid"`
	From       stateName  `json:"from"`
	Reason     reasonName `json:"reason"`
	Code       int        `json:"exit_code"`
	Signal     signal     `json:"signal,omitzero"`
	CoreDump   bool       `json:"core_dump,omitempty"`
	Unknown    bool       `json:"unknown,omitempty"`
	Uptime     duration   `json:"uptime"`
	Usage      *usageData `json:"usage,omitempty"`
}

func exitToData(e prefork.ExitEvent) exitData {
	x := e.Exit
	d := exitData{
		Slot: x.Slot, Generation: x.Generation, Ordinal: x.Ordinal, PID: x.PID,
		From: stateName(e.From), Reason: reasonName(x.Reason),
		Code: x.Status.Code, CoreDump: x.Status.CoreDump, Unknown: x.Status.Unknown,
		Uptime: duration(x.Uptime), Usage: usageToData(x.Usage),
	}
	if x.Status.Signal != 0 {
		d.Signal.Signal = x.Status.Signal
	}
	return d
}

func (d exitData) event() prefork.ExitEvent {
	sig, _ := d.Signal.Signal.(syscall.Signal)
	return prefork.ExitEvent{From: prefork.State(d.From), Exit: prefork.Exit{
		Slot: d.Slot, Generation: d.Generation, Ordinal: d.Ordinal, PID: d.PID,
		Reason: prefork.Reason(d.Reason),
		Status: prefork.ExitStatus{Code: d.Code, Signal: sig, CoreDump: d.CoreDump, Unknown: d.Unknown},
		Uptime: time.Duration(d.Uptime), Usage: d.Usage.rusage(),
	}}
}

type leftoverData struct {
	Worker workerData `json:"worker"`
	State  stateName  `json:"state"`
}

type delayData struct {
	Slot int      `json:"slot"`
	For  duration `json:"for"`
}

type spawnFailedData struct {
	Error errorValue `json:"error"`
	Retry duration   `json:"retry"`
}

func spawnFailedToData(e prefork.SpawnFailedEvent) spawnFailedData {
	d := spawnFailedData{Retry: duration(e.Retry)}
	if e.Err != nil {
		d.Error.error = e.Err
	}
	return d
}

func (d spawnFailedData) event() prefork.SpawnFailedEvent {
	e := prefork.SpawnFailedEvent{Retry: time.Duration(d.Retry)}
	if !errors.As(d.Error.error, &e.Err) { // SpawnFailedEvent.String needs an error
		e.Err = &prefork.SpawnError{Err: errors.New("unknown")}
	}
	return e
}

type signalData struct {
	Received signal   `json:"received"`
	Sent     signal   `json:"sent,omitzero"`
	Interval duration `json:"interval,omitempty"`
	Rolling  bool     `json:"rolling,omitempty"`
	Replaces bool     `json:"replaces,omitempty"`
	Origin   string   `json:"origin,omitempty"`
}

type reloadData struct {
	Received signal `json:"received"`
	Origin   string `json:"origin,omitempty"`
}

type noteData struct {
	By   string `json:"by,omitempty"`
	Text string `json:"text"`
}

type doneData struct {
	Slot int `json:"slot"`
}

type holdData struct {
	Slot int  `json:"slot"`
	Held bool `json:"held"`
}

type resizeData struct {
	From int `json:"from"`
	To   int `json:"to"`
}

type errorData struct {
	Error errorValue `json:"error"`
}

type rolledData struct {
	Generation int `json:"gen"`
}

type rollFailedData struct {
	Generation int        `json:"gen"`
	Kept       int        `json:"kept"`
	Error      errorValue `json:"error"`
}

type crashLoopData struct {
	Failures int      `json:"failures"`
	Window   duration `json:"window"`
}

type upgradeData struct {
	PID     int    `json:"successor"`
	Program string `json:"program,omitempty"`
}

type successorData struct {
	PID int `json:"successor"`
}

type upgradeFailedData struct {
	PID   int        `json:"successor,omitempty"`
	Error errorValue `json:"error"`
}

// stateName and reasonName are encoded as their names.
type (
	stateName  prefork.State
	reasonName prefork.Reason
)

func (s stateName) MarshalText() ([]byte, error)  { return []byte(prefork.State(s).String()), nil }
func (r reasonName) MarshalText() ([]byte, error) { return []byte(prefork.Reason(r).String()), nil }

func (s *stateName) UnmarshalText(text []byte) (err error) {
	*s, err = valueByName(text, func(s stateName) string { return prefork.State(s).String() })
	return err
}

func (r *reasonName) UnmarshalText(text []byte) (err error) {
	*r, err = valueByName(text, func(r reasonName) string { return prefork.Reason(r).String() })
	return err
}

func valueByName[T ~uint8](text []byte, name func(T) string) (T, error) {
	for i := range 256 {
		if name(T(i)) == string(text) {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("unknown name %q", text)
}

// duration is encoded as its String, for example "1.5s".
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}

// signal is encoded as its name, or as "signal 64" if it has none.
type signal struct{ os.Signal }

func (s signal) IsZero() bool { return s.Signal == nil }

func (s signal) MarshalText() ([]byte, error) {
	if s.Signal == nil {
		return nil, nil
	}
	return []byte(sig.Name(s.Signal)), nil
}

func (s *signal) UnmarshalText(text []byte) error {
	s.Signal = nil
	if len(text) == 0 {
		return nil
	}
	if name := string(text); name == "reload" || name == "upgrade" {
		s.Signal = prefork.Request(name)
		return nil
	}
	n, err := sig.Parse(string(text))
	if err != nil {
		return err
	}
	s.Signal = n
	return nil
}

// errorValue is encoded as the text of the error, or as an object if the error
// is a *prefork.SpawnError.
type errorValue struct{ error }

type spawnErrorData struct {
	Slot       int    `json:"slot"`
	Generation int    `json:"gen"`
	Error      string `json:"error"`
}

func (f errorValue) MarshalJSON() ([]byte, error) {
	var spawn *prefork.SpawnError
	switch {
	case f.error == nil:
		return []byte("null"), nil
	case errors.As(f.error, &spawn) && spawn.Err != nil:
		return json.Marshal(spawnErrorData{spawn.Slot, spawn.Generation, truncate(spawn.Err.Error())})
	}
	return json.Marshal(truncate(f.error.Error()))
}

func (f *errorValue) UnmarshalJSON(text []byte) error {
	f.error = nil
	if string(text) == "null" {
		return nil
	}
	var s string
	if json.Unmarshal(text, &s) == nil {
		f.error = errors.New(s)
		return nil
	}
	var d spawnErrorData
	if err := json.Unmarshal(text, &d); err != nil {
		return err
	}
	f.error = &prefork.SpawnError{Slot: d.Slot, Generation: d.Generation, Err: errors.New(d.Error)}
	return nil
}
