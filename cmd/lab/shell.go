package main

func shellMain([]string) int { return 2 }
