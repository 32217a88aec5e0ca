package journal

import "github.com/prefork-go/prefork/ops/record"

// The types of a journal's records are those of package record, which encodes
// them. These names are the same types.
type (
	// A Record is an event with its time and the process that has written it.
	Record = record.Record

	// A State describes the last active manager of a journal.
	State = record.State

	// Started is written when a manager opens the journal.
	Started = record.Started

	// TookOver is written when a successor has taken over.
	TookOver = record.TookOver

	// Ended is written when a manager closes the journal.
	Ended = record.Ended

	// Rotated contains the state of the manager. It is the first record of
	// each file except the oldest.
	Rotated = record.Rotated

	// MoreWorkers follows a Rotated or TookOver that has more workers than
	// fit in one line.
	MoreWorkers = record.MoreWorkers

	// Warning is a message of the program that writes the journal.
	Warning = record.Warning

	// A Worker is a worker of a State.
	Worker = record.Worker

	// ProgramAdded and the following are written by prefork watch. It reports that a
	// service has come.
	ProgramAdded = record.ProgramAdded

	// ProgramChanged reports that the file of a program has changed.
	ProgramChanged = record.ProgramChanged

	// ProgramRemoved reports that a service has gone.
	ProgramRemoved = record.ProgramRemoved

	// PassedOver reports that a name in the directory is no service.
	PassedOver = record.PassedOver

	// GaveUp reports that a service is not started again.
	GaveUp = record.GaveUp

	// Unknown is a record whose type this version does not know.
	Unknown = record.Unknown
)
