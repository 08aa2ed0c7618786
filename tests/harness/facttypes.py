"""Task types that read facts."""

from pathlib import Path

from harness.taskagent import PLACE_A, TRIAGE, write_type

MONITOR, NOBODY = "spiffe://example.org/monitor", "spiffe://example.org/nobody"
ISSUER = "https://signals.example.org"
CEILING = f'[[ceiling]]\nresource = "{PLACE_A}"\nactions = ["doc:read", "doc:write"]\n'
PERMIT = '@id("all") permit (principal, action, resource);\n'
FROZEN = '@id("frozen") forbid (principal, action, resource) when { context.facts has freeze && context.facts.freeze };'
RISKY = (
    '@id("risky") forbid (principal, action == Sojourn::Action::"doc:write", resource)\n'
    "when { context.facts has risk && context.facts.risk > 5 };"
)
OPEN = '@id("open") permit (principal, action, resource) when { context.facts.open };'

# name: ([facts], Cedar)
TYPES = {
    "revoked": ('freeze = "boolean"', PERMIT + FROZEN),
    "suspended": ('freeze = {type = "boolean", on_deny = "suspend"}', PERMIT + FROZEN),
    "narrowed": (
        f'risk = {{type = "long", on_deny = "narrow", sources = ["{MONITOR}", "{ISSUER}", "operator"]}}',
        PERMIT + RISKY,
    ),
    "required": (
        f'open = {{type = "boolean", required = true, max_age = "3s", on_deny = "suspend", sources = ["{MONITOR}", "operator"]}}',
        OPEN,
    ),
}


def write_types(folder: Path) -> None:
    for name, (facts, cedar) in TYPES.items():
        write_type(folder, name, f'allowed_workloads = ["{TRIAGE}"]\n[facts]\n{facts}\n{CEILING}', cedar)
