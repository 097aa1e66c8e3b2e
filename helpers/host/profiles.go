//go:build linux

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// policyDir is where the kernel shows its AppArmor policy, and takes changes. Without AppArmor the directory does not exist.
// https://gitlab.com/apparmor/apparmor/-/wikis/AppArmorInterfaces
const policyDir = "/sys/kernel/security/apparmor"

// ProfileName returns the name of an AppArmor profile of the owner. It ends with the random id of the run: a profile is
// nothing but a name and rules, so only its name can show whose it is.
func (o Owner) ProfileName(name string) string { return fmt.Sprintf("cdb-%s-%s", o.ID(name), o.id) }

// ownsProfile reports whether the owner, or one of its questions, has loaded a profile.
func (o Owner) ownsProfile(name string) bool {
	question := o.Question
	if question == "" {
		question = "q[0-9]+"
	}
	return o.id != "" && regexp.MustCompile(`^cdb-[0-9a-z-]*-`+o.Run+`-`+question+`-`+o.id+`$`).MatchString(name)
}

// profiles returns the modes of the loaded AppArmor profiles by their names.
func profiles(dir string) map[string]string {
	text, _ := os.ReadFile(filepath.Join(dir, "profiles"))
	modes := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if i := strings.LastIndex(line, " ("); i > 0 {
			modes[line[:i]] = strings.Trim(line[i:], " ()\n")
		}
	}
	return modes
}

// RemoveProfiles removes the AppArmor profiles of an owner, and returns their names. A process that is under one becomes unconfined.
func RemoveProfiles(owner Owner) (removed []string, err error) {
	for name := range profiles(policyDir) {
		if !owner.ownsProfile(name) {
			continue
		}
		if err := os.WriteFile(filepath.Join(policyDir, ".remove"), []byte(name), 0o600); err != nil {
			return removed, fmt.Errorf("remove the AppArmor profile %s: %w", name, err)
		}
		removed = append(removed, name)
	}
	return removed, nil
}

func (inv Inventory) addProfiles(owner *Owner) error {
	for name := range profiles(policyDir) {
		if owner == nil || owner.ownsProfile(name) {
			inv.add("AppArmor profile", name, "")
		}
	}
	return nil
}
