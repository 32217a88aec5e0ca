package prefork

import (
	"bytes"
	"encoding/json"
)

// Each event is encoded as an object: its name by the key "event", then its
// fields. Durations are strings such as "1.5s", signals their names, and errors
// their texts.

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
	}{jsonSignal{&e.Received}, jsonSignal{&e.Sent}, (*jsonDuration)(&e.Interval), &e.Rolling}
}

func (e ResizeEvent) MarshalJSON() ([]byte, error) {
	type plain ResizeEvent
	return eventJSON("resize", plain(e))
}

func (e ReloadFailedEvent) MarshalJSON() ([]byte, error) {
	return eventJSON("reload-failed", e.fields())
}

func (e *ReloadFailedEvent) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, e.fields())
}

func (e *ReloadFailedEvent) fields() any {
	return &struct {
		Err jsonError `json:"err"`
	}{jsonError{&e.Err}}
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
