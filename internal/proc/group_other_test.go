//go:build unix && !linux

package proc

func groupsSupported(Table) bool { return false }

func oldTables() map[string]func(func(Note)) Table { return nil }
