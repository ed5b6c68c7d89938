"""Runs a program under a seccomp profile of Docker's format: confine.py PROFILE PROGRAM [ARGUMENT...]

As a container runtime does, for want of one in the tests: each rule by libseccomp, loaded just before
the program is executed. Rules that a capability includes apply when this process has it; capabilities
of Docker's defaults are not looked at.
"""
import ctypes
import json
import os
import sys

ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
COMPARISONS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
CAPABILITIES = {"CAP_BPF": 39}


class Comparison(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int), ("value", ctypes.c_uint64),
                ("value_two", ctypes.c_uint64)]


def action_of(rule, key="action", number="errnoRet"):
    action = ACTIONS[rule[key]]
    return action | rule.get(number, 1) if rule[key] == "SCMP_ACT_ERRNO" else action


def has(capability):
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return effective >> CAPABILITIES[capability] & 1


def add(library, context, rule):
    compared = [Comparison(a["index"], COMPARISONS[a["op"]], a["value"], a.get("valueTwo", 0))
                for a in rule.get("args", [])]
    array = (Comparison * len(compared))(*compared)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            raise SystemExit(f"confine: no system call is named {name}")
        if number < -1:
            continue  # of another architecture
        error = library.seccomp_rule_add_array(context, action_of(rule), number, len(compared), array)
        if error:
            raise SystemExit(f"confine: {name}: {os.strerror(-error)}")


def load(profile):
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int,
                                               ctypes.c_uint, ctypes.c_void_p]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    context = library.seccomp_init(action_of(profile, "defaultAction", "defaultErrnoRet"))
    for rule in profile["syscalls"]:
        if all(has(capability) for capability in rule.get("includes", {}).get("caps", [])):
            add(library, context, rule)
    error = library.seccomp_load(context)
    if error:
        raise SystemExit(f"confine: {os.strerror(-error)}")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        load(json.load(file))
    os.execv(sys.argv[2], sys.argv[2:])
