"""A stand-in for OpenAI on loopback, for tests, load and the demo.

It serves both wires of a run under ``/v1``, the Responses API in background mode and the Assistants API,
with answers that OpenAI's own description and the SDK's types accept. How a run goes follows a script
(``scripts.py``), every request is written down and can be waited for (``recorder.py``), and what goes wrong is
told beforehand (``faults.py``).

What it does not do:

- think: an answer is a fixed sentence, filler of the length asked for, or JSON of the form asked for;
- stream, or answer a response in the foreground: ``stream: true`` and a missing ``background: true`` are refused;
- keep anything: a restart forgets every run, and nothing expires by age;
- know assistants, threads, conversations or responses of others: every id exists, except those that begin with
  ``asst_missing``, ``thread_missing``, ``conv_missing`` or ``resp_missing``. Of what came before, a new response knows
  only which calls the one before it made: these must be answered, and no others;
- keep or show messages that a request brings, such as ``additional_messages``;
- limit rates, bill, or separate projects: every accepted key sees every run;
- check values beyond parameter names, required ones, ``metadata`` and the smallest token limits;
- demand the header ``OpenAI-Beta: assistants=v2``, which OpenAI did and other servers do not;
- serve other address layouts (``/openai/v1``, ``?api-version=``), the Agents API, files or webhooks.
"""

from openairun_devkit.openai.asking import Submit
from openairun_devkit.openai.recorder import RecordedRequest
from openairun_devkit.openai.scripts import SHORTHANDS
from openairun_devkit.openai.server import OpenAIStandIn, RunSummary

__all__ = ["SHORTHANDS", "OpenAIStandIn", "RecordedRequest", "RunSummary", "Submit"]
