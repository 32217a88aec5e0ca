//go:build unix && !linux

package proc

func knowsRests(Table) bool { return false }

func oldTables() map[string]func(func(Note)) Table { return nil }
