//go:build unix && !linux

package capture

const fionread = 0x4004667f // of the BSDs; package unix does not have it
