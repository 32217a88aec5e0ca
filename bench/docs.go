package main

func (r *report) updateDocs(dir string) error { return nil }
