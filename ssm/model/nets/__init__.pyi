from .last_block import read_class_token_alone as read_class_token_alone
from .start import standardised as standardised
from .start import start_on as start_on
