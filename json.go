package prefork

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/internal/sig"
)

// The JSON of everything that programs may want to send or store.

// MarshalText returns the name of the state, as String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts a name that MarshalText returns.
func (s *State) UnmarshalText(text []byte) (err error) {
	*s, err = byName[State](text, "state")
	return err
}

// MarshalText returns the name of the reason, as String does.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText accepts a name that MarshalText returns.
func (r *Reason) UnmarshalText(text []byte) (err error) {
	*r, err = byName[Reason](text, "reason")
	return err
}

func byName[T interface {
	~uint8
	fmt.Stringer
}](text []byte, kind string) (T, error) {
	for i := T(0); !strings.HasPrefix(i.String(), "unknown ("); i++ {
		if i.String() == string(text) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("prefork: %q is not the name of a %s", text, kind)
}

const (
	statusUnknown  = "unknown status"
	statusExitCode = "exit code "
	statusDumped   = " (core dumped)"
)

// MarshalText returns the status as String does, for example "exit code 1",
// "SIGKILL" or "SIGSEGV (core dumped)".
func (s ExitStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts a text that MarshalText returns.
func (s *ExitStatus) UnmarshalText(text []byte) error {
	name, dumped := strings.CutSuffix(string(text), statusDumped)
	code, exited := strings.CutPrefix(name, statusExitCode)
	switch {
	case string(text) == statusUnknown:
		*s = ExitStatus{Unknown: true}
	case exited && !dumped:
		n, err := strconv.Atoi(code)
		if err != nil {
			return fmt.Errorf("prefork: %q is not an exit status", text)
		}
		*s = ExitStatus{Code: n}
	default:
		signal, err := sig.Parse(name)
		if err != nil {
			return fmt.Errorf("prefork: %q is not an exit status", text)
		}
		*s = ExitStatus{Signal: signal, CoreDump: dumped}
	}
	return nil
}

// MarshalJSON returns an object with lower-case keys. The uptime is a string such
// as "1.5s". Usage, whose fields differ between systems, is left out.
func (e Exit) MarshalJSON() ([]byte, error) {
	type Plain Exit
	return json.Marshal(struct {
		Plain
		Uptime     jsonDuration `json:"uptime"`
		ReadyAfter jsonDuration `json:"ready_after,omitzero"`
	}{Plain(e), jsonDuration(e.Uptime), jsonDuration(e.ReadyAfter)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (e *Exit) UnmarshalJSON(data []byte) error {
	type Plain Exit
	return json.Unmarshal(data, &struct {
		*Plain
		Uptime     *jsonDuration `json:"uptime"`
		ReadyAfter *jsonDuration `json:"ready_after"`
	}{(*Plain)(e), (*jsonDuration)(&e.Uptime), (*jsonDuration)(&e.ReadyAfter)})
}

// MarshalJSON returns an object with lower-case keys. The CPU time is a string
// such as "1.5s".
func (s Snapshot) MarshalJSON() ([]byte, error) {
	type Plain Snapshot
	return json.Marshal(struct {
		Plain
		CPU jsonDuration `json:"cpu"`
	}{Plain(s), jsonDuration(s.CPU)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (s *Snapshot) UnmarshalJSON(data []byte) error {
	type Plain Snapshot
	return json.Unmarshal(data, &struct {
		*Plain
		CPU *jsonDuration `json:"cpu"`
	}{(*Plain)(s), (*jsonDuration)(&s.CPU)})
}

// MarshalJSON returns an object with lower-case keys. The error is its text.
func (o Outcome) MarshalJSON() ([]byte, error) { return json.Marshal(o.fields()) }

// UnmarshalJSON is the inverse of MarshalJSON. The error has the same text, and
// wraps nothing.
func (o *Outcome) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, o.fields()) }

func (o *Outcome) fields() any {
	return &struct {
		Began      *time.Time `json:"began"`
		Ended      *time.Time `json:"ended"`
		Generation *int       `json:"gen"`
		Err        jsonError  `json:"err"`
	}{&o.Began, &o.Ended, &o.Generation, jsonError{&o.Err}}
}

// jsonStatus is encoded as the character of that number.
type jsonStatus byte

func (s jsonStatus) MarshalText() ([]byte, error) { return []byte(string(rune(s))), nil }

func (s *jsonStatus) UnmarshalText(text []byte) error {
	all := []rune(string(text))
	if len(all) != 1 || all[0] > 255 {
		return fmt.Errorf("prefork: %q is not a status", text)
	}
	*s = jsonStatus(all[0])
	return nil
}

// jsonDuration is encoded as a string, such as "1.5s".
type jsonDuration time.Duration

func (d jsonDuration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *jsonDuration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = jsonDuration(v)
	return err
}

// jsonError is encoded as its text, or as an object if it is a *SpawnError.
type jsonError struct{ err *error }

func (e jsonError) MarshalJSON() ([]byte, error) {
	switch err := (*e.err).(type) {
	case nil:
		return []byte("null"), nil
	case *SpawnError: // not one inside of another error, whose text would be lost
		return json.Marshal(err)
	}
	return json.Marshal((*e.err).Error())
}

func (e jsonError) UnmarshalJSON(data []byte) error {
	var text *string
	if json.Unmarshal(data, &text) == nil {
		if *e.err = nil; text != nil {
			*e.err = errors.New(*text)
		}
		return nil
	}
	spawn := new(SpawnError)
	if err := json.Unmarshal(data, spawn); err != nil {
		return err
	}
	*e.err = spawn
	return nil
}

// MarshalJSON returns an object with the slot, the generation and the error's
// text.
func (e *SpawnError) MarshalJSON() ([]byte, error) {
	return json.Marshal(spawnErrorJSON{e.Slot, e.Generation, jsonError{&e.Err}})
}

// UnmarshalJSON is the inverse of MarshalJSON. The error has the same text, and
// wraps nothing.
func (e *SpawnError) UnmarshalJSON(data []byte) error {
	v := spawnErrorJSON{Err: jsonError{&e.Err}}
	err := json.Unmarshal(data, &v)
	e.Slot, e.Generation = v.Slot, v.Generation
	return err
}

type spawnErrorJSON struct {
	Slot       int       `json:"slot"`
	Generation int       `json:"gen"`
	Err        jsonError `json:"err"`
}

// MarshalJSON returns an object with lower-case keys. The status is a string of
// one character, and left out if it is not set.
func (w WorkerInfo) MarshalJSON() ([]byte, error) {
	type Plain WorkerInfo
	return json.Marshal(struct {
		Plain
		ReadyAfter jsonDuration `json:"ready_after,omitzero"`
		Status     jsonStatus   `json:"status,omitzero"`
	}{Plain(w), jsonDuration(w.ReadyAfter), jsonStatus(w.Status)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (w *WorkerInfo) UnmarshalJSON(data []byte) error {
	type Plain WorkerInfo
	v := struct {
		*Plain
		ReadyAfter *jsonDuration `json:"ready_after"`
		Status     jsonStatus    `json:"status"`
	}{Plain: (*Plain)(w), ReadyAfter: (*jsonDuration)(&w.ReadyAfter)}
	err := json.Unmarshal(data, &v)
	w.Status = byte(v.Status)
	return err
}

// jsonSignal is encoded as the name of the signal.
type jsonSignal struct{ sig *os.Signal }

func (s jsonSignal) MarshalJSON() ([]byte, error) {
	if *s.sig == nil {
		return []byte("null"), nil
	}
	return json.Marshal(sig.Name(*s.sig))
}

func (s jsonSignal) UnmarshalJSON(data []byte) error {
	var name *string
	if err := json.Unmarshal(data, &name); err != nil || name == nil {
		*s.sig = nil
		return err
	}
	if r := Request(*name); r == requestReload || r == requestUpgrade {
		*s.sig = r
		return nil
	}
	n, err := sig.Parse(*name)
	if err != nil {
		return fmt.Errorf("prefork: %w", err)
	}
	*s.sig = n
	return nil
}

// Each event is encoded as an object: its name by the key "event", then its
// fields. Durations are strings such as "1.5s", signals their names, and errors
// their texts.

func (StartedEvent) MarshalJSON() ([]byte, error) { return eventJSON("started", struct{}{}) }

func (e GenerationEvent) MarshalJSON() ([]byte, error) {
	type plain GenerationEvent
	return eventJSON("generation", plain(e))
}

func (e StateEvent) MarshalJSON() ([]byte, error) {
	type plain StateEvent
	return eventJSON("worker", plain(e))
}

func (e ExitEvent) MarshalJSON() ([]byte, error) {
	type plain ExitEvent
	return eventJSON("exit", plain(e))
}

func (e LeftoverEvent) MarshalJSON() ([]byte, error) {
	type plain LeftoverEvent
	return eventJSON("leftover", plain(e))
}

func (e DelayEvent) MarshalJSON() ([]byte, error) { return eventJSON("delay", e.fields()) }

func (e *DelayEvent) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, e.fields()) }

func (e *DelayEvent) fields() any {
	return &struct {
		Slot *int          `json:"slot"`
		For  *jsonDuration `json:"for"`
	}{&e.Slot, (*jsonDuration)(&e.For)}
}

func (e DoneEvent) MarshalJSON() ([]byte, error) {
	type plain DoneEvent
	return eventJSON("done", plain(e))
}

func (e HoldEvent) MarshalJSON() ([]byte, error) {
	type plain HoldEvent
	return eventJSON("hold", plain(e))
}

func (e SpawnFailedEvent) MarshalJSON() ([]byte, error) {
	return eventJSON("spawn-failed", e.fields())
}

func (e *SpawnFailedEvent) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, e.fields())
}

func (e *SpawnFailedEvent) fields() any {
	return &struct {
		Err   **SpawnError  `json:"err"`
		Retry *jsonDuration `json:"retry"`
	}{&e.Err, (*jsonDuration)(&e.Retry)}
}

func (e SignalEvent) MarshalJSON() ([]byte, error) { return eventJSON("signal", e.fields()) }

func (e *SignalEvent) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, e.fields()) }

func (e *SignalEvent) fields() any {
	return &struct {
		Received jsonSignal    `json:"received"`
		Sent     jsonSignal    `json:"sent"`
		Interval *jsonDuration `json:"interval"`
		Rolling  *bool         `json:"rolling"`
		Replaces *bool         `json:"replaces"`
		Origin   *string       `json:"origin"`
	}{jsonSignal{&e.Received}, jsonSignal{&e.Sent}, (*jsonDuration)(&e.Interval), &e.Rolling, &e.Replaces, &e.Origin}
}

func (e ResizeEvent) MarshalJSON() ([]byte, error) {
	type plain ResizeEvent
	return eventJSON("resize", plain(e))
}

func (e ReloadEvent) MarshalJSON() ([]byte, error) { return eventJSON("reload", e.fields()) }

func (e *ReloadEvent) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, e.fields()) }

func (e *ReloadEvent) fields() any {
	return &struct {
		Received jsonSignal `json:"received"`
		Origin   *string    `json:"origin"`
	}{jsonSignal{&e.Received}, &e.Origin}
}

func (e ReloadFailedEvent) MarshalJSON() ([]byte, error) {
	return eventJSON("reload-failed", errFields(&e.Err))
}

func (e *ReloadFailedEvent) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, errFields(&e.Err))
}

// errFields are the fields of an event that has only an error.
func errFields(err *error) any {
	return &struct {
		Err jsonError `json:"err"`
	}{jsonError{err}}
}

func (e RolledEvent) MarshalJSON() ([]byte, error) {
	type plain RolledEvent
	return eventJSON("rolled", plain(e))
}

func (e RollFailedEvent) MarshalJSON() ([]byte, error) { return eventJSON("roll-failed", e.fields()) }

func (e *RollFailedEvent) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, e.fields()) }

func (e *RollFailedEvent) fields() any {
	return &struct {
		Generation *int      `json:"gen"`
		Kept       *int      `json:"kept"`
		Err        jsonError `json:"err"`
	}{&e.Generation, &e.Kept, jsonError{&e.Err}}
}

func (e SettledEvent) MarshalJSON() ([]byte, error) {
	type plain SettledEvent
	return eventJSON("settled", plain(e))
}

func (e CrashLoopEvent) MarshalJSON() ([]byte, error) { return eventJSON("crash-loop", e.fields()) }

func (e *CrashLoopEvent) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, e.fields()) }

func (e *CrashLoopEvent) fields() any {
	return &struct {
		Failures *int          `json:"failures"`
		Window   *jsonDuration `json:"window"`
	}{&e.Failures, (*jsonDuration)(&e.Window)}
}

func (PauseEvent) MarshalJSON() ([]byte, error) { return eventJSON("pause", struct{}{}) }

func (e PausedEvent) MarshalJSON() ([]byte, error) {
	type plain PausedEvent
	return eventJSON("paused", plain(e))
}

func (ResumeEvent) MarshalJSON() ([]byte, error) { return eventJSON("resume", struct{}{}) }

func (e UpgradeEvent) MarshalJSON() ([]byte, error) {
	type plain UpgradeEvent
	return eventJSON("upgrade", plain(e))
}

func (e UpgradedEvent) MarshalJSON() ([]byte, error) {
	type plain UpgradedEvent
	return eventJSON("upgraded", plain(e))
}

func (e UpgradeFailedEvent) MarshalJSON() ([]byte, error) {
	return eventJSON("upgrade-failed", e.fields())
}

func (e *UpgradeFailedEvent) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, e.fields())
}

func (e *UpgradeFailedEvent) fields() any {
	return &struct {
		PID *int      `json:"successor"`
		Err jsonError `json:"err"`
	}{&e.PID, jsonError{&e.Err}}
}

func (e NoteEvent) MarshalJSON() ([]byte, error) {
	type plain NoteEvent
	return eventJSON("note", plain(e))
}

func (e EndedEvent) MarshalJSON() ([]byte, error) { return eventJSON("ended", errFields(&e.Err)) }

func (e *EndedEvent) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, errFields(&e.Err))
}

// eventJSON encodes an event with its name.
func eventJSON(name string, fields any) ([]byte, error) {
	data, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	head := `{"event":"` + name + `"`
	if !bytes.Equal(data, []byte("{}")) {
		head += ","
	}
	return append([]byte(head), data[1:]...), nil
}
