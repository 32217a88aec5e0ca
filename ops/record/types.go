package record

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/prefork-go/prefork"
)

// recordTypes are the types of records by their names in the file. Each has a
// struct for its content, here or in content.go: a change of a type of the
// program must not change the content of a file.
var recordTypes = []recordType{
	newType("started",
		func(e Started) managerData { return managerData(e) },
		func(d managerData) Started { return Started(d) }),
	newType("took-over",
		func(e TookOver) stateData { return stateToData(e.State) },
		func(d stateData) TookOver { return TookOver{d.state()} }),
	newType("ended",
		func(e Ended) managerData { return managerData{PID: e.PID} },
		func(d managerData) Ended { return Ended{d.PID} }),
	newType("rotated",
		func(e Rotated) rotatedData { return rotatedData{e.Reason, stateToData(e.State)} },
		func(d rotatedData) Rotated { return Rotated{d.Reason, d.stateData.state()} }),
	newType("workers",
		func(e MoreWorkers) workersData { return workersData{workersToData(e.Workers)} },
		func(d workersData) MoreWorkers { return MoreWorkers{workersFromData(d.Workers)} }),
	newType("warning",
		func(e Warning) warningData { return warningData{truncate(e.Component), truncate(e.Error)} },
		func(d warningData) Warning { return Warning(d) }),
	newType("program-added",
		func(e ProgramAdded) serviceData { return serviceData{Service: truncate(e.Service), Kind: e.Kind} },
		func(d serviceData) ProgramAdded { return ProgramAdded{d.Service, d.Kind} }),
	newType("program-changed",
		func(e ProgramChanged) serviceData { return serviceData{Service: truncate(e.Service)} },
		func(d serviceData) ProgramChanged { return ProgramChanged{d.Service} }),
	newType("program-removed",
		func(e ProgramRemoved) serviceData {
			return serviceData{Service: truncate(e.Service), Reason: truncate(e.Reason)}
		},
		func(d serviceData) ProgramRemoved { return ProgramRemoved{d.Service, d.Reason} }),
	newType("passed-over",
		func(e PassedOver) passedOverData { return passedOverData{truncate(e.Name), truncate(e.Reason)} },
		func(d passedOverData) PassedOver { return PassedOver(d) }),
	newType("gave-up",
		func(e GaveUp) serviceData {
			return serviceData{Service: truncate(e.Service), Reason: truncate(e.Reason)}
		},
		func(d serviceData) GaveUp { return GaveUp{d.Service, d.Reason} }),

	// Of a Manager, not of the process: a program can have several, one after
	// another or at once.
	newType("manager-started",
		func(prefork.StartedEvent) struct{} { return struct{}{} },
		func(struct{}) prefork.StartedEvent { return prefork.StartedEvent{} }),
	newType("manager-ended",
		func(e prefork.EndedEvent) errorData { return errorData{errorValue{e.Err}} },
		func(d errorData) prefork.EndedEvent { return prefork.EndedEvent{Err: d.Error.error} }),
	newType("generation",
		func(e prefork.GenerationEvent) generationData { return generationData(e) },
		func(d generationData) prefork.GenerationEvent { return prefork.GenerationEvent(d) }),
	newType("worker", workerEventToData, workerEventData.event),
	newType("exit", exitToData, exitData.event),
	newType("leftover",
		func(e prefork.LeftoverEvent) leftoverData {
			return leftoverData{workerToData(e.Worker), stateName(e.State)}
		},
		func(d leftoverData) prefork.LeftoverEvent {
			return prefork.LeftoverEvent{Worker: d.Worker.worker(), State: prefork.State(d.State)}
		}),
	newType("delay",
		func(e prefork.DelayEvent) delayData { return delayData{e.Slot, duration(e.For)} },
		func(d delayData) prefork.DelayEvent {
			return prefork.DelayEvent{Slot: d.Slot, For: time.Duration(d.For)}
		}),
	newType("spawn-failed", spawnFailedToData, spawnFailedData.event),
	newType("signal",
		func(e prefork.SignalEvent) signalData {
			return signalData{signal{e.Received}, signal{e.Sent}, duration(e.Interval), e.Rolling, e.Replaces, truncate(e.Origin)}
		},
		func(d signalData) prefork.SignalEvent {
			return prefork.SignalEvent{
				Received: d.Received.Signal, Sent: d.Sent.Signal,
				Interval: time.Duration(d.Interval), Rolling: d.Rolling, Replaces: d.Replaces, Origin: d.Origin,
			}
		}),
	newType("done",
		func(e prefork.DoneEvent) doneData { return doneData(e) },
		func(d doneData) prefork.DoneEvent { return prefork.DoneEvent(d) }),
	newType("hold",
		func(e prefork.HoldEvent) holdData { return holdData(e) },
		func(d holdData) prefork.HoldEvent { return prefork.HoldEvent(d) }),
	newType("resize",
		func(e prefork.ResizeEvent) resizeData { return resizeData(e) },
		func(d resizeData) prefork.ResizeEvent { return prefork.ResizeEvent(d) }),
	newType("note",
		func(e prefork.NoteEvent) noteData { return noteData{truncate(e.By), truncate(e.Text)} },
		func(d noteData) prefork.NoteEvent { return prefork.NoteEvent(d) }),
	newType("reload",
		func(e prefork.ReloadEvent) reloadData { return reloadData{signal{e.Received}, truncate(e.Origin)} },
		func(d reloadData) prefork.ReloadEvent {
			return prefork.ReloadEvent{Received: d.Received.Signal, Origin: d.Origin}
		}),
	newType("settled",
		func(e prefork.SettledEvent) rolledData { return rolledData(e) },
		func(d rolledData) prefork.SettledEvent { return prefork.SettledEvent(d) }),
	newType("reload-failed",
		func(e prefork.ReloadFailedEvent) errorData { return errorData{errorValue{e.Err}} },
		func(d errorData) prefork.ReloadFailedEvent { return prefork.ReloadFailedEvent{Err: d.Error.error} }),
	newType("rolled",
		func(e prefork.RolledEvent) rolledData { return rolledData(e) },
		func(d rolledData) prefork.RolledEvent { return prefork.RolledEvent(d) }),
	newType("roll-failed",
		func(e prefork.RollFailedEvent) rollFailedData {
			return rollFailedData{e.Generation, e.Kept, errorValue{e.Err}}
		},
		func(d rollFailedData) prefork.RollFailedEvent {
			return prefork.RollFailedEvent{Generation: d.Generation, Kept: d.Kept, Err: d.Error.error}
		}),
	newType("crash-loop",
		func(e prefork.CrashLoopEvent) crashLoopData { return crashLoopData{e.Failures, duration(e.Window)} },
		func(d crashLoopData) prefork.CrashLoopEvent {
			return prefork.CrashLoopEvent{Failures: d.Failures, Window: time.Duration(d.Window)}
		}),
	newType("pause",
		func(prefork.PauseEvent) struct{} { return struct{}{} },
		func(struct{}) prefork.PauseEvent { return prefork.PauseEvent{} }),
	newType("paused",
		func(e prefork.PausedEvent) workerData { return workerToData(e.Worker) },
		func(d workerData) prefork.PausedEvent { return prefork.PausedEvent{Worker: d.worker()} }),
	newType("resume",
		func(prefork.ResumeEvent) struct{} { return struct{}{} },
		func(struct{}) prefork.ResumeEvent { return prefork.ResumeEvent{} }),
	newType("upgrade",
		func(e prefork.UpgradeEvent) upgradeData { return upgradeData(e) },
		func(d upgradeData) prefork.UpgradeEvent { return prefork.UpgradeEvent(d) }),
	newType("upgraded",
		func(e prefork.UpgradedEvent) successorData { return successorData(e) },
		func(d successorData) prefork.UpgradedEvent { return prefork.UpgradedEvent(d) }),
	newType("upgrade-failed",
		func(e prefork.UpgradeFailedEvent) upgradeFailedData {
			return upgradeFailedData{e.PID, errorValue{e.Err}}
		},
		func(d upgradeFailedData) prefork.UpgradeFailedEvent {
			return prefork.UpgradeFailedEvent{PID: d.PID, Err: d.Error.error}
		}),
}

// recordType converts between an event and the content of its records.
type recordType struct {
	name   string
	encode func(event fmt.Stringer) (content any, ok bool)
	decode func(data []byte) (fmt.Stringer, error)
}

// newType returns the recordType of events of type E with content of type D.
func newType[E fmt.Stringer, D any](name string, toData func(E) D, fromData func(D) E) recordType {
	return recordType{
		name: name,
		encode: func(event fmt.Stringer) (any, bool) {
			e, ok := event.(E)
			if !ok {
				return nil, false
			}
			return toData(e), true
		},
		decode: func(data []byte) (fmt.Stringer, error) {
			var d D
			if err := json.Unmarshal(data, &d); err != nil {
				return nil, err
			}
			return fromData(d), nil
		},
	}
}
