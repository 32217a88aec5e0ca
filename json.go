package prefork

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prefork-go/prefork/internal/sig"
)

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

// MarshalJSON returns an object with lower-case keys. The status is a string of
// one character, and left out if it is not set.
func (w WorkerInfo) MarshalJSON() ([]byte, error) {
	type Plain WorkerInfo
	return json.Marshal(struct {
		Plain
		Status jsonStatus `json:"status,omitzero"`
	}{Plain(w), jsonStatus(w.Status)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (w *WorkerInfo) UnmarshalJSON(data []byte) error {
	type Plain WorkerInfo
	v := struct {
		*Plain
		Status jsonStatus `json:"status"`
	}{Plain: (*Plain)(w)}
	err := json.Unmarshal(data, &v)
	w.Status = byte(v.Status)
	return err
}

// MarshalJSON returns an object with lower-case keys. The uptime is a string such
// as "1.5s". Usage, whose fields differ between systems, is left out.
func (e Exit) MarshalJSON() ([]byte, error) {
	type Plain Exit
	return json.Marshal(struct {
		Plain
		Uptime jsonDuration `json:"uptime"`
	}{Plain(e), jsonDuration(e.Uptime)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (e *Exit) UnmarshalJSON(data []byte) error {
	type Plain Exit
	return json.Unmarshal(data, &struct {
		*Plain
		Uptime *jsonDuration `json:"uptime"`
	}{(*Plain)(e), (*jsonDuration)(&e.Uptime)})
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
	n, err := sig.Parse(*name)
	if err != nil {
		return fmt.Errorf("prefork: %w", err)
	}
	*s.sig = n
	return nil
}

// jsonError is encoded as its text, or as an object if it is a *SpawnError.
type jsonError struct{ err *error }

func (e jsonError) MarshalJSON() ([]byte, error) {
	var spawn *SpawnError
	switch {
	case *e.err == nil:
		return []byte("null"), nil
	case errors.As(*e.err, &spawn):
		return json.Marshal(spawn)
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
