package main

func (r *report) draw(dir string) error { return nil }
